"""A row becomes commands, the commands become recorded numbers, and nothing is done twice or lost."""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from wavemix_pl.config import WaveMixConfig
from wavemix_pl.data.generated import write_dataset
from wavemix_pl.errors import InputError
from wavemix_pl.models.wavemix import create_model
from wavemix_pl.paper import reproduce
from wavemix_pl.paper.catalog import experiments_folder, find_rows, find_table, load_tables
from wavemix_pl.paper.commands import Plan
from wavemix_pl.paper.provenance import hash_of, origin
from wavemix_pl.paper.reproduce import Runner, split_arguments
from wavemix_pl.paper.results import read_results
from wavemix_pl.paper.rows import Row

Run = Callable[..., int]
EXPERIMENTS = experiments_folder()
FAST = ("--trainer.max_epochs=2", "--trainer.callbacks.final_epochs=1", "--data.batch_size=24")


def dry_run(run: Run, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[list[str]]:
    assert run("reproduce", *arguments, "--dry-run") == 0
    return [shlex.split(line) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with `experiments` of its own, without results."""
    shutil.copytree(EXPERIMENTS, tmp_path / "experiments", ignore=shutil.ignore_patterns("results"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def in_this_process(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands of a row do not start a process each, which takes seconds."""
    monkeypatch.setattr(reproduce, "run_in_own_process", lambda command: run(*command))


def recorded(folder: Path, table: str = "table05") -> list[dict[str, str]]:
    with (folder / "experiments" / "results" / f"{table}.csv").open() as file:
        return list(csv.DictReader(file))


def test_dry_run_prints_what_anyone_could_type(run: Run, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit, test = dry_run(run, capsys, "5", "--row", "WaveMix-Lite-8/5", "--seeds", "1", "--data.root", "x y")
    assert fit[:2] == ["wavemix-pl", "fit"]
    assert test[:2] == ["wavemix-pl", "test"]
    assert "--data.root=x y" in fit
    assert fit[2:4] == ["--config", "experiments/recipes/classification.yaml"]
    for option in ("--data=FashionMNIST", "--model.variant=WaveMix-Lite-8/5", "--seed_everything=0"):
        assert option in fit
        assert option in test
    directory = "runs/table05/Fashion-MNIST-WaveMix-Lite-8-5/seed0"
    assert f"--trainer.default_root_dir={directory}" in fit
    assert f"--ckpt_path={directory}/checkpoints/best.ckpt" in test
    assert not (copy / "runs").exists()
    with pytest.raises(SystemExit) as ended:  # the parser's way to end
        run(*fit[1:], "--print_config")
    assert ended.value.code == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["model"]["init_args"]["optimizer"]["class_path"].endswith("AdamW")
    assert config["data"]["init_args"]["batch_size"] == 256


def test_a_command_for_each_seed_stage_and_column(run: Run, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = dry_run(run, capsys, "14", "--row", "2")
    assert [command[1] for command in commands] == ["fit", "test"] * 3 + ["benchmark"]
    assert "--model.overrides.mixer=dwt-single" in commands[0]
    assert commands[-1][2:4] == ["WaveMix-144/7 (level 2)", "--task=classification"]
    assert {"--memory", "--training", "--batch_size=1024", "--overrides.mixer=dwt-single"} < set(commands[-1])
    (fps,) = dry_run(run, capsys, "2", "--group", "not pre-trained", "--stage", "fps")
    assert fps[1] == "benchmark"
    assert fps[fps.index("--image_sizes") + 1] == "1024x2048"


def test_recipe_can_be_exchanged(run: Run, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("5", "--row", "WaveMix-Lite-64/6", "--seeds", "1", "--stage", "train")
    own, _ = dry_run(run, capsys, *options)
    other, _ = dry_run(run, capsys, *options, "--recipe", "classification+as-published")
    configs = [other[i + 1] for i, word in enumerate(other) if word == "--config"]
    assert [Path(config).stem for config in configs] == ["classification", "as-published"]
    directories = {next(word for word in fit if "default_root_dir" in word) for fit in (own, other)}
    assert len(directories) == 2


@pytest.mark.parametrize("row", [r for t in load_tables().values() for r in t.rows if r.model], ids=str)
def test_directories_differ(row: Row) -> None:
    plan = Plan()
    same = [r for r in find_table(row.table).rows if r.model and plan.directory(r, 0) == plan.directory(row, 0)]
    assert same == [row]
    changed = Plan(flags=("--trainer.max_epochs=3",)).directory(row, 0)
    neutral = Plan(flags=("--trainer.precision=16-mixed", "--data.root=x")).directory(row, 0)
    assert changed != neutral == plan.directory(row, 0) != plan.directory(row, 1)


@pytest.mark.usefixtures("in_this_process")
def test_from_command_to_recorded_number(
    run: Run, copy: Path, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("reproduce", "5", "--row", "WaveMix-Lite-8/5*", "--seeds", "2", f"--data.root={data_root}", *FAST)
    assert run(*command) == 0
    first, second = recorded(copy)
    assert (first["table"], first["row"], first["metric"]) == ("5", "WaveMix-Lite-8/5", "acc1")
    assert (first["seed"], second["seed"], first["epochs"], first["batch_size"]) == ("0", "1", "2", "24")
    assert first["flags"] == shlex.join(FAST)
    assert float(first["wall_s"]) > 0
    assert first["config_hash"] == second["config_hash"]
    test = json.loads((copy / first["run"] / "test.json").read_text())
    assert float(first["value"]) == pytest.approx(100 * test["metrics"]["test_acc1"], abs=1e-3)
    for field in ("device", "date", "versions", "precision", "recipe"):
        assert first[field]
    capsys.readouterr()
    assert run(*command) == 0
    assert capsys.readouterr().out.count("recorded already; remove runs/table05/") == 2
    assert run(*command, "--again") == 0
    assert len(recorded(copy)) == 2
    shutil.rmtree(copy / second["run"])
    assert run(*command) == 0
    assert "seed 1: recorded already; --again repeats it" in capsys.readouterr().out
    assert run(*command, "--again") == 0
    *_, repeated = recorded(copy)
    assert len(recorded(copy)) == 3
    assert (repeated["seed"], repeated["value"]) == ("1", second["value"])
    capsys.readouterr()
    # it is no number of the row as it is
    assert run("tables", "5", "--json") == 0
    entry = json.loads(capsys.readouterr().out)[1]
    assert entry["ours"]["acc1"] is None
    (variant,) = entry["variants"]
    assert variant == f"classification {shlex.join(FAST)}"
    assert entry["variants"][variant]["acc1"]["std"] is not None


@pytest.mark.usefixtures("in_this_process")
def test_generated_images_give_no_number(run: Run, copy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_dataset("FashionMNIST", copy / "generated")
    options = ("--data.root=generated", "--trainer.max_epochs=2", "--trainer.callbacks.final_epochs=1")
    command = ("reproduce", "5", "--row", "WaveMix-Lite-8/5", "--seeds", "1", *options, "--data.batch_size=4")
    assert run(*command) == 2
    assert "tested on generated images: nothing is recorded" in capfd.readouterr().err
    assert not (copy / "experiments" / "results").exists()


def runner(copy: Path, data_root: Path, execute: Callable[[list[str]], int], *flags: str) -> Runner:
    plan = Plan(flags=(f"--data.root={data_root}", *FAST, *flags), experiments=copy / "experiments")
    return Runner(plan, execute, say=lambda line: None)


def test_what_was_interrupted_goes_on(run: Run, copy: Path, data_root: Path) -> None:
    """Killed after an epoch, the same command ends with the weights of a run that was not."""
    (row,) = find_rows(find_table(5), "WaveMix-Lite-8/5")
    whole = runner(copy, data_root, lambda command: run(*command), "--trainer.log_every_n_steps=1")
    whole.train(row, seed=0)
    directory = whole.plan.directory(row, 0)
    expected = torch.load(directory / "checkpoints" / "last.ckpt", weights_only=True)
    shutil.rmtree(directory)
    (copy / "experiments" / "results" / "table05.csv").unlink()
    command = [sys.executable, "-m", "wavemix_pl", "reproduce", "5", "--row", row.row, "--seeds", "1"]
    command += [*whole.plan.flags]
    same_sums = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    with subprocess.Popen(command, env=same_sums, start_new_session=True, stdout=-3, stderr=-3) as process:
        last = directory / "checkpoints" / "last.ckpt"
        deadline = time.monotonic() + 120
        while not last.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
    whole.train(row, seed=0)
    found = torch.load(last, weights_only=True)
    assert found["epoch"] == expected["epoch"]
    for name, value in expected["state_dict"].items():
        assert torch.equal(found["state_dict"][name], value), name
    (result,) = recorded(copy)
    assert result["epochs"] == "2"


def test_the_second_of_two_refuses(copy: Path, data_root: Path) -> None:
    (row,) = find_rows(find_table(5), "WaveMix-Lite-8/5")
    seen: list[str] = []

    def meanwhile(command: list[str]) -> int:
        with pytest.raises(InputError, match="another process is at work in"):
            runner(copy, data_root, lambda command: 0).train(row, seed=0)
        seen.append(command[0])
        return 3  # and the first one fails

    with pytest.raises(SystemExit) as ended:
        runner(copy, data_root, meanwhile).train(row, seed=0)
    assert ended.value.code == 3
    assert seen == ["fit"]


def test_fine_tuning_needs_its_weights(
    run: Run, copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # importing it fails: no network in tests
    assert run("reproduce", "8", "--seeds", "1") == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "imagenet/wavemix-192-16-level3" in message
    assert "weights/ImageNet/wavemix_192_16_75.06.pth" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("55",), "there is no table '55'"),
        (("5", "--row", "WaveMix-Lite-8/55"), "did you mean 'WaveMix-Lite-8/5'"),
        (("5", "--seeds", "0"), "--seeds must be at least 1"),
        (("5", "--stage", "fps"), "--stage must be one of all, train, benchmark, got 'fps'"),
        (("5", "--recipe", "clasification"), "there is no recipe 'clasification'; known are"),
        (("5", "--seed_everything=3"), "--seed_everything is told by the row: leave it out"),
        (("5", "--data", "CIFAR10"), "--data is told by the row: leave it out"),
        ((), "the following arguments are required: table"),
    ],
)
def test_bad_input(
    run: Run, copy: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert run("reproduce", *arguments) == 2
    assert message in capsys.readouterr().err
    assert not (copy / "runs").exists()


def test_arguments_are_divided() -> None:
    own, flags = split_arguments(["5", "--trainer.max_epochs", "3", "--row=A", "--dry_run", "--trainer.callbacks+=X"])
    assert own == ["5", "--row=A", "--dry-run"]
    assert flags == ["--trainer.max_epochs=3", "--trainer.callbacks+=X"]


@pytest.mark.parametrize(
    ("table", "label"),
    [
        ("4", "ResNet-18"),
        ("4.3", "ConvMixer"),
        ("5", "WaveMix-Lite-8/10"),
        pytest.param("7", "WaveMix-192/16 (level 3)", marks=pytest.mark.slow),
        pytest.param("14", "3", marks=pytest.mark.slow),
    ],
)
def test_smoke(run: Run, copy: Path, capsys: pytest.CaptureFixture[str], table: str, label: str) -> None:
    group = ("--group", "SVHN") if table == "7" else ()
    stage = ("--stage", "train") if table == "14" else ()  # memory is measured in processes of their own
    assert run("reproduce", table, "--row", label, *group, *stage, "--smoke") == 0
    assert "every stage ran" in capsys.readouterr().out
    assert not (copy / "runs").exists()
    assert not (copy / "experiments" / "results").exists()


def test_smoke_fails_where_a_command_does(run: Run, copy: Path) -> None:
    recipe = copy / "experiments" / "recipes" / "classification.yaml"
    recipe.write_text(recipe.read_text().replace("class_path: torch.optim.AdamW", "class_path: torch.optim.AdamX"))
    with pytest.raises(SystemExit) as ended:
        run("reproduce", "5", "--row", "WaveMix-Lite-8/5", "--smoke")
    assert ended.value.code == 2


@pytest.mark.slow
@pytest.mark.parametrize("table", load_tables())
def test_smoke_of_every_row(run: Run, copy: Path, capfd: pytest.CaptureFixture[str], table: str) -> None:
    assert run("reproduce", table, "--smoke") == 0
    rows = [row for row in find_table(table).rows if row.model]
    assert capfd.readouterr().out.count("every stage ran") == len(rows)


def test_configurations_are_compared_without_seed_and_places(tmp_path: Path) -> None:
    def config(seed: int, root: str, lr: float) -> Path:
        path = tmp_path / "config.yaml"
        content: dict[str, Any] = {"seed_everything": seed, "trainer": {"default_root_dir": root}}
        content |= {"data": {"init_args": {"root": root}}, "model": {"init_args": {"lr": lr, "backbone": root}}}
        path.write_text(yaml.safe_dump(content))
        return path

    assert hash_of(config(0, "a", 0.1)) == hash_of(config(1, "b", 0.1)) != hash_of(config(0, "a", 0.2))


def test_commit_of_a_result(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        done = subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)
        return done.stdout.decode().strip()

    assert origin(tmp_path)["commit"] == ""
    git("init", "-q")
    (tmp_path / "code").write_text("1")
    (tmp_path / "experiments" / "results").mkdir(parents=True)
    (tmp_path / "experiments" / "results" / "a.csv").write_text("1")
    git("add", ".")
    git("commit", "-qm", "first")
    commit = git("rev-parse", "--short=12", "HEAD")
    (tmp_path / "experiments" / "results" / "a.csv").write_text("2")  # a number that was recorded meanwhile
    assert origin(tmp_path / "experiments")["commit"] == commit
    (tmp_path / "code").write_text("2")
    assert origin(tmp_path / "experiments")["commit"] == f"{commit}+"


def test_benchmark_is_recorded_once_for_a_device(copy: Path) -> None:
    (row,) = find_rows(find_table(2), "WaveMix-256/16 (4 level)", "not pre-trained")
    commands: list[list[str]] = []

    def measure(command: list[str]) -> int:
        commands.append(command)
        save = Path(command[-1].removeprefix("--save="))
        result = {"images_per_s": 0.5, "ms": 2000.0, "precision": "float32", "memory_gb": None}
        machine = {"device": origin(copy)["device"]}
        save.write_text(json.dumps({"machine": machine, "options": {"batch_size": 1}, "results": [result]}))
        return 0

    plan = Plan(experiments=copy / "experiments")
    for _ in range(2):
        Runner(plan, measure, say=lambda line: None).benchmark(row)
    assert len(commands) == 1
    ((result,), broken) = read_results(copy / "experiments" / "results" / "table02.csv")
    assert (result.metric, result.value, result.precision, result.recipe) == ("fps", 0.5, "float32", "benchmark")
    assert not broken


def test_counts_of_rows_are_those_of_models() -> None:
    (row,) = find_rows(find_table(14), "3")
    assert row.model is not None
    config = WaveMixConfig.from_notation(row.model, **row.overrides)
    assert sum(p.numel() for p in create_model(config, 10).parameters()) == 15_235_318
