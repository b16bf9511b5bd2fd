"""A run's directory and its checkpoints: nothing that is there is lost, nothing refused leaves a trace."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from wavemix_pl.run_directory import lock_directory

Run = Callable[..., int]
ONE = ("--data.batch_size=24", "--data.val_fraction=0.25", "--model.variant=WaveMix-Lite-4/1", "--trainer.max_epochs=1")
MORE = (*ONE[:-1], "--trainer.max_epochs=2")


@pytest.fixture
def fit(run: Run, data_root: Path) -> Run:
    return lambda *options: run("fit", "--data=FashionMNIST", f"--data.root={data_root}", *options)


def contents(folder: str) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


def rows(file: str) -> list[dict[str, str]]:
    with Path(file).open() as opened:
        return list(csv.DictReader(opened))


def epoch(folder: str) -> int:
    return int(torch.load(f"{folder}/checkpoints/last.ckpt", weights_only=True)["epoch"])


def test_an_explicit_checkpoint_goes_on_in_its_own_directory(fit: Run) -> None:
    first, second = "runs/FashionMNIST-WaveMix-Lite-4-1", "runs/FashionMNIST-WaveMix-Lite-4-1-2"
    assert fit(*ONE) == fit(*ONE) == 0
    before = contents(second)
    assert fit(*MORE, f"--ckpt_path={first}/checkpoints/last.ckpt") == 0
    assert epoch(first) == 1
    assert contents(second) == before
    assert fit(*MORE, f"--ckpt_path={first}/checkpoints/last.ckpt", f"--trainer.default_root_dir={second}") == 2
    assert contents(second) == before
    assert fit(*MORE, f"--ckpt_path={first}/checkpoints/best.ckpt", "--trainer.default_root_dir=elsewhere") == 0
    assert epoch("elsewhere") == 1


def test_last_that_is_gone_does_not_start_over_a_run(fit: Run) -> None:
    """The run goes on from the best: it may have been killed at the end of its first epoch, between the two."""
    assert fit(*ONE, "--trainer.default_root_dir=r") == 0
    Path("r/checkpoints/last.ckpt").unlink()
    best = Path("r/checkpoints/best.ckpt").read_bytes()
    assert fit(*ONE, "--trainer.default_root_dir=r", "--ckpt_path=last") == 0  # nothing is left to do
    assert Path("r/checkpoints/best.ckpt").read_bytes() == best
    assert fit(*MORE, "--trainer.default_root_dir=r", "--ckpt_path=last") == 0
    assert epoch("r") == 1
    assert [row["epoch"] for row in rows("r/metrics.csv") if row["val_acc1"]] == ["0", "1"]


def test_home_directory(fit: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(Path.cwd()))
    assert fit(*ONE, "--trainer.default_root_dir=~/r") == 0
    assert fit(*ONE, "--trainer.default_root_dir=~/r") == 2
    assert fit(*MORE, "--trainer.default_root_dir=~/r", "--ckpt_path=last") == 0
    assert epoch("r") == 1
    assert not Path("~").exists()


def test_checkpoints_lie_in_the_directory_whatever_the_logger(fit: Run) -> None:
    logger = ("--trainer.logger=CSVLogger", "--trainer.logger.save_dir=x", "--trainer.default_root_dir=r")
    assert fit(*ONE, *logger) == 0
    assert fit(*MORE, *logger, "--ckpt_path=last") == 0
    assert epoch("r") == 1


def test_two_at_once_get_two_directories(tmp_path: Path, data_root: Path) -> None:
    options = ("fit", "--data=FashionMNIST", f"--data.root={data_root}", *ONE)
    command = [sys.executable, "-m", "wavemix_pl", *options]
    runs = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in "ab"]
    assert [process.wait(120) for process in runs] == [0, 0]
    assert len(list(tmp_path.glob("runs/*/checkpoints/last.ckpt"))) == 2


@pytest.mark.parametrize(
    "refused",
    [
        ("--ckpt_path=nope.ckpt",),
        ("--ckpt_path=last", "--model.variant=WaveMix-Lite-8/1"),
        ("--ckpt_path=last", "--model.overrides.nope=1"),
    ],
)
def test_a_refused_resume_changes_nothing(fit: Run, refused: tuple[str, ...]) -> None:
    assert fit(*ONE, "--trainer.default_root_dir=r") == 0
    before = contents("r")
    assert fit(*MORE, "--trainer.default_root_dir=r", *refused) == 2
    assert contents("r") == before


@pytest.mark.parametrize(
    "refused",
    [
        ("--data.root=nowhere",),
        ("--trainer.callbacks+=OptimizerSwitch",),
        ("--model.overrides.nope=1",),
        ("--seed_everything=-1",),
        ("--trainer.strategy=nope",),
        ("--model.optimizer=AdamW", "--model.optimizer.lr=-1"),
        ("--model.label_smoothing=2",),
    ],
)
def test_a_refused_run_leaves_nothing(
    fit: Run, refused: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("wavemix_pl.data.FashionMNIST.debian_folder", Path("nowhere"))
    assert fit(*ONE, *refused) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("wavemix-pl: error: ")
    assert not list(Path("runs").iterdir()) if Path("runs").exists() else True
    assert fit(*ONE, *refused, "--trainer.default_root_dir=mine") == 2
    assert not Path("mine").exists()


def test_a_refused_command_never_removes_what_it_did_not_make(fit: Run) -> None:
    """A checkpoint that is not there, in an empty working directory: that directory stays."""
    Path("empty").mkdir()
    assert fit(*ONE, "--ckpt_path=empty/nope.ckpt") == 2
    assert fit(*ONE, "--trainer.default_root_dir=empty", "--model.overrides.nope=1") == 2
    assert Path("empty").is_dir()


def test_a_directory_that_is_a_file(fit: Run, capsys: pytest.CaptureFixture[str]) -> None:
    Path("afile").touch()
    assert fit(*ONE, "--trainer.default_root_dir=afile/x") == 2
    assert "afile" in capsys.readouterr().err.splitlines()[-1]


def test_resume_after_the_switch_needs_the_switch(fit: Run, capsys: pytest.CaptureFixture[str]) -> None:
    switch = ("--trainer.callbacks+=OptimizerSwitch", "--trainer.callbacks.final_epochs=1")
    assert fit(*MORE, *switch, "--trainer.default_root_dir=r") == 0
    longer = (*ONE[:-1], "--trainer.max_epochs=3", "--trainer.default_root_dir=r", "--ckpt_path=last")
    assert fit(*longer) == 2
    assert "--config r/config.yaml" in capsys.readouterr().err
    assert fit(*longer, *switch) == 0


def test_what_is_asked_for_is_never_overruled(fit: Run, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Not even where it is the default."""
    assert fit(*ONE, "--trainer.default_root_dir=r") == 0
    assert run("test", "--ckpt_path=r/checkpoints/last.ckpt", "--model.variant=WaveMix-Lite-8/5") == 2
    assert "not 'WaveMix-Lite-8/5'" in capsys.readouterr().err
    other = ("--model.variant=WaveMix-Lite-8/1", "--model.label_smoothing=0.5", "--model.overrides.dropout=0.1")
    assert run("test", "--ckpt_path=r/checkpoints/last.ckpt", *other) == 2  # each difference is named
    said = capsys.readouterr().err.splitlines()[-1]
    assert "label_smoothing 0.0, not 0.5, overrides None, not {'dropout': 0.1}, variant 'WaveMix-Lite-4/1', not" in said
    assert "leave --model.label_smoothing and --model.overrides and --model.variant out" in said


@pytest.mark.parametrize(
    "content", [[1, 2], torch.ones(2), {"a": 1}, {"state_dict": {}}], ids=["list", "tensor", "dict", "bare"]
)
def test_no_checkpoint_of_ours(run: Run, content: object, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(content, "other.ckpt")
    assert run("test", "--ckpt_path=other.ckpt") == 2
    assert "other.ckpt: no checkpoint of 'wavemix-pl fit'" in capsys.readouterr().err


def test_named_files_are_predicted_whatever_the_config_says(
    fit: Run, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    assert fit(*ONE, "--trainer.default_root_dir=r") == 0
    name = "[red]we[ird.png"
    Image.new("L", (28, 28)).save(name)
    for number in range(3):
        Image.new("L", (28, 28), number).save(f"{number}.png")
    capsys.readouterr()
    checkpoint = "--ckpt_path=r/checkpoints/last.ckpt"
    assert run("predict", "--config", "r/config.yaml", checkpoint, "--trainer.default_root_dir=r", name) == 0
    out = capsys.readouterr().out
    assert name in out
    assert "1.png" not in out
    assert run("predict", ".", checkpoint, "--trainer.limit_predict_batches=1", "--data.batch_size=2") == 0
    Path("broken.png").write_text("no image")
    assert run("predict", "broken.png", checkpoint, "--data.num_workers=1") == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("wavemix-pl: error: broken.png: cannot be read")
    for bad in ("--top=0", "--trainer.limit_predict_batches=0"):
        assert run("predict", "0.png", checkpoint, bad) == 2


def test_a_directory_in_use_is_refused(fit: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = lock_directory(tmp_path / "run")
    assert fit(*ONE, "--trainer.default_root_dir=run") == 2
    assert "another process is at work in run: wait for it" in capsys.readouterr().err
    assert (tmp_path / "run").exists()
    lock.release()
    assert fit(*ONE, "--trainer.default_root_dir=run") == 0
    assert fit(*MORE, "--trainer.default_root_dir=run", "--ckpt_path=last") == 0
