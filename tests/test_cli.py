"""The command line as people type it, on tiny data in the real layout."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from wavemix_pl import __version__, create_model
from wavemix_pl.data import EmbeddedFashionMNIST
from wavemix_pl.modules import ClassificationModule

Run = Callable[..., int]
RECIPES = Path(__file__).parents[1] / "experiments" / "recipes"
SMALL = ("--data=FashionMNIST", "--data.batch_size=24", "--data.val_fraction=0.25", "--model.variant=WaveMix-Lite-4/1")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """The directory of a run of three epochs, made by a process of its own."""
    run = tmp_path_factory.mktemp("trained") / "run"
    options = (f"--data.root={data_root}", "--trainer.max_epochs=3", f"--trainer.default_root_dir={run}")
    subprocess.run([sys.executable, "-m", "wavemix_pl", "fit", *SMALL, *options], check=True, capture_output=True)
    return run


def checkpoint(run: Path, kind: str = "best") -> str:
    return str(run / "checkpoints" / f"{kind}.ckpt")


# -- the command itself ---------------------------------------------------------------------------------------------


def test_help_is_there_before_torch() -> None:
    script = "import sys; from wavemix_pl.cli import main; main(['--help']); assert 'torch' not in sys.modules"
    out = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert "fit" in out
    assert "predict" in out


def test_version(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["fit", "validate", "test", "predict"])
def test_help_of_each_verb(run: Run, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        run(verb, "--help")
    assert exit.value.code == 0
    assert "--ckpt_path" in capsys.readouterr().out


def test_torchvision_of_another_build(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken:
        """An import that ends as torchvision's does beside a torch of another build."""

        def find_spec(self, name: str, path: Any, target: Any = None) -> None:
            if name == "wavemix_pl.training":
                raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.delitem(sys.modules, "wavemix_pl.training", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    assert run("fit") == 2
    assert "install torchvision anew" in capsys.readouterr().err


# -- fit ------------------------------------------------------------------------------------------------------------


def test_a_run_is_one_directory(trained: Path) -> None:
    names = {str(path.relative_to(trained)) for path in trained.rglob("*") if path.is_file()}
    assert {"config.yaml", "metrics.csv", "checkpoints/best.ckpt", "checkpoints/last.ckpt"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    with (trained / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows if row["val_acc1"]] == ["0", "1", "2"]
    assert {"train_loss", "train_acc1", "train_acc5", "val_loss", "val_acc1", "val_acc5"} <= rows[0].keys()


def test_best_and_last(trained: Path) -> None:
    with (trained / "metrics.csv").open() as file:
        scores = [float(row["val_acc1"]) for row in csv.DictReader(file) if row["val_acc1"]]
    best, last = (torch.load(checkpoint(trained, kind), weights_only=True) for kind in ("best", "last"))
    assert scores[best["epoch"]] == pytest.approx(max(scores))
    assert last["epoch"] == 2


def plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, (str, int)) and plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(plain(item) for item in value)
    return value is None or isinstance(value, (bool, int, float, str, torch.Tensor))


def test_checkpoints_hold_plain_values_only(trained: Path) -> None:
    content = torch.load(checkpoint(trained), weights_only=True)
    content["state_dict"] = dict(content["state_dict"])
    assert plain(content)
    assert content["preprocessing"] == EmbeddedFashionMNIST().preprocessing


def test_checkpoint_loads_in_python(trained: Path) -> None:
    module = ClassificationModule.load_from_checkpoint(checkpoint(trained), weights_only=True)
    assert module.hparams["variant"] == "WaveMix-Lite-4/1"
    assert module.preprocessing is not None
    assert module(torch.zeros(1, 1, 28, 28)).shape == (1, 10)


def test_saved_config_repeats_the_run(trained: Path, run: Run, tmp_path: Path) -> None:
    assert run("fit", "--config", trained / "config.yaml", f"--trainer.default_root_dir={tmp_path / 'again'}") == 0
    first, second = (torch.load(checkpoint(path, "last"), weights_only=True) for path in (trained, tmp_path / "again"))
    torch.testing.assert_close(first["state_dict"], second["state_dict"], rtol=0, atol=0)


def test_seeds_differ(trained: Path, run: Run, data_root: Path) -> None:
    options = (f"--data.root={data_root}", "--trainer.max_epochs=3", "--trainer.default_root_dir=other")
    assert run("fit", *SMALL, *options, "--seed_everything=1") == 0
    first, second = (torch.load(checkpoint(path, "last"), weights_only=True) for path in (trained, Path("other")))
    assert not torch.equal(
        first["state_dict"]["model.head.linear.weight"], second["state_dict"]["model.head.linear.weight"]
    )


def test_first_free_directory_and_no_run_over_another(
    run: Run, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (*SMALL, f"--data.root={data_root}", "--trainer.max_epochs=1", "--trainer.logger=false")
    for name in ("FashionMNIST-WaveMix-Lite-4-1", "FashionMNIST-WaveMix-Lite-4-1-2"):
        assert run("fit", *options) == 0
        assert Path("runs", name, "checkpoints", "last.ckpt").is_file()
    before = Path("runs", name, "checkpoints", "last.ckpt").read_bytes()
    assert run("fit", *options, f"--trainer.default_root_dir=runs/{name}") == 2
    assert "--ckpt_path=last" in capsys.readouterr().err
    assert Path("runs", name, "checkpoints", "last.ckpt").read_bytes() == before


def test_going_on_keeps_what_was_there(run: Run, data_root: Path) -> None:
    """The same command twice, in the directory that the first chose; the second has one epoch more to go."""
    options = (*SMALL, f"--data.root={data_root}", "--ckpt_path=last")
    assert run("fit", *options, "--trainer.max_epochs=1") == 0
    (directory,) = Path("runs").iterdir()
    config = (directory / "config.yaml").read_bytes()
    assert run("fit", *options, "--trainer.max_epochs=2") == 0
    assert list(Path("runs").iterdir()) == [directory]
    with (directory / "metrics.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file) if row["val_acc1"]] == ["0", "1"]
    assert (directory / "config.yaml").read_bytes() == config
    assert "max_epochs: 2" in (directory / "config.resumed.yaml").read_text()


def test_best_and_last_of_a_directory(trained: Path, run: Run, data_root: Path) -> None:
    options = ("--data=FashionMNIST", f"--data.root={data_root}", f"--trainer.default_root_dir={trained}")
    for kind in ("best", "last"):
        assert run("test", *options, f"--ckpt_path={kind}") == 0


def test_processes_that_nobody_told_each_other(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run("fit", "--trainer.max_epochs=1") == 2
    assert "--trainer.default_root_dir" in capsys.readouterr().err


def printed_config(run: Run, capsys: pytest.CaptureFixture[str], *arguments: Any) -> Any:
    with pytest.raises(SystemExit) as exit:
        run(*arguments, "--print_config")
    assert exit.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


def test_configs_merge_and_short_names(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    delta = tmp_path / "delta.yaml"
    delta.write_text("data: {init_args: {batch_size: 48}}\nmodel: {init_args: {label_smoothing: 0.1}}\n")
    config = printed_config(
        run,
        capsys,
        *("fit", "--config", RECIPES / "classification.yaml", "--config", delta, "--data=FashionMNIST"),
        *("--model.variant=WaveMix-128/8 (level 3)", "--model.overrides.stem=patchify", "--model.optimizer=SGD"),
        *("--model.optimizer.lr=0.1", "--model.lr_scheduler=CosineAnnealingLR", "--model.lr_scheduler.T_max=7"),
        *("--trainer.callbacks.final_epochs=5", "--trainer.callbacks+=LearningRateMonitor"),
    )
    assert config["data"]["class_path"].endswith(".FashionMNIST")
    assert config["data"]["init_args"]["batch_size"] == 48
    model = config["model"]["init_args"]
    assert model["label_smoothing"] == 0.1
    assert model["variant"] == "WaveMix-128/8 (level 3)"
    assert model["overrides"] == {"stem": "patchify"}
    assert model["optimizer"]["class_path"] == "torch.optim.SGD"
    assert model["lr_scheduler"]["init_args"]["T_max"] == 7
    callbacks = config["trainer"]["callbacks"]
    assert [callback["class_path"].rpartition(".")[2] for callback in callbacks] == [
        "OptimizerSwitch",
        "LearningRateMonitor",
    ]
    assert callbacks[0]["init_args"]["final_epochs"] == 5


def test_optimizer_scheduler_and_precision_by_options(run: Run, data_root: Path) -> None:
    code = run(
        *("fit", *SMALL, f"--data.root={data_root}", "--trainer.max_epochs=1", "--trainer.precision=bf16-mixed"),
        *("--model.optimizer=Adagrad", "--model.optimizer.lr=0.01", "--trainer.default_root_dir=run"),
        *("--model.lr_scheduler=OneCycleLR", "--model.lr_scheduler.max_lr=0.1", "--model.lr_scheduler.total_steps=9"),
        *("--model.lr_scheduler.cycle_momentum=false", "--model.lr_interval=step"),
    )
    assert code == 0
    content = torch.load(checkpoint(Path("run"), "last"), weights_only=True)
    assert content["lr_schedulers"][0]["last_epoch"] == 2  # two steps, not one epoch
    assert "sum" in content["optimizer_states"][0]["state"][0]  # Adagrad's


def test_ddp_by_the_real_launcher(tmp_path: Path, data_root: Path) -> None:
    """Two processes, one directory, nothing seen twice."""
    options = (*SMALL, f"--data.root={data_root}", "--trainer.max_epochs=2")
    parallel = ("--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.accelerator=cpu")
    subprocess.run(
        [sys.executable, "-m", "wavemix_pl", "fit", *options, *parallel], check=True, cwd=tmp_path, capture_output=True
    )
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["FashionMNIST-WaveMix-Lite-4-1"]
    assert len(list(tmp_path.rglob("last.ckpt"))) == 1


# -- test, validate, predict ----------------------------------------------------------------------------------------


def test_report(trained: Path, run: Run, data_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    options = (*SMALL[:3], f"--data.root={data_root}", f"--ckpt_path={checkpoint(trained)}")
    config = (trained / "config.yaml").read_bytes()
    assert run("test", *options, "--trainer.callbacks+=PredictionPicture") == 0
    out = capsys.readouterr().out
    module = ClassificationModule.load_from_checkpoint(checkpoint(trained), weights_only=True)
    for expected in (
        "test_acc1",
        "test_acc5",
        f"{sum(p.numel() for p in module.parameters()):,}",
        "images/s",
        "predict",
    ):
        assert expected in out
    picture = trained / "predictions.png"
    with Image.open(picture) as image:
        assert min(image.size) > 300
    picture.unlink()
    assert (trained / "config.yaml").read_bytes() == config


def test_accuracy_is_over_all_images(
    trained: Path, run: Run, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not a mean of the batches' means: 20 images in batches of 12 and 8."""
    options = ("--data=FashionMNIST", f"--data.root={data_root}", "--data.batch_size=12")
    assert run("test", *options, f"--ckpt_path={checkpoint(trained)}") == 0
    shown = next(line for line in capsys.readouterr().out.splitlines() if "test_acc1" in line).split()
    module = ClassificationModule.load_from_checkpoint(checkpoint(trained), weights_only=True).eval()
    data = EmbeddedFashionMNIST()
    full = data.load("test")
    chosen = torch.cat([(full.targets == label).nonzero().flatten()[:2] for label in range(10)])
    with torch.no_grad():
        right = module(data.normalize(full.images[chosen])).argmax(1) == full.targets[chosen]
    assert f"{float(right.float().mean()):.4f}" in shown


def test_validate(trained: Path, run: Run, data_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--data=FashionMNIST", f"--data.root={data_root}", "--data.val_fraction=0.25")
    assert run("validate", *options, f"--ckpt_path={checkpoint(trained)}") == 0
    assert "val_acc1" in capsys.readouterr().out


def test_predict(trained: Path, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = EmbeddedFashionMNIST()
    images = data.load("test").images[::300]
    for number, image in enumerate(images):
        Image.fromarray(image[0].numpy()).save(tmp_path / f"{number}.png")
    assert run("predict", tmp_path, f"--ckpt_path={checkpoint(trained)}", "--json", "--top=2") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [Path(row["file"]).name for row in rows] == ["0.png", "1.png", "2.png", "3.png"]
    module = ClassificationModule.load_from_checkpoint(checkpoint(trained), weights_only=True).eval()
    with torch.no_grad():
        expected = module(data.normalize(images)).softmax(1).topk(2)
    for row, values, indices in zip(rows, *expected, strict=True):
        assert list(row["classes"]) == [data.class_names[i] for i in indices]
        assert list(row["classes"].values()) == pytest.approx(values.tolist(), abs=1e-5)
    assert run("predict", tmp_path / "0.png", f"--ckpt_path={checkpoint(trained)}") == 0
    assert "0.png" in capsys.readouterr().out


def test_predict_overlays(trained: Path, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The image, enlarged, and below it a line for each class; images themselves are never overwritten."""
    pixels = EmbeddedFashionMNIST().load("test").images[0, 0]
    Path("in").mkdir()
    Image.fromarray(pixels.numpy()).save("in/boot.png")
    options = (f"--ckpt_path={checkpoint(trained)}", "--top=2", "--overlay")
    assert run("predict", "in", *options, "--json", "--output=out") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["overlay"] == "out/boot.png"
    with Image.open("out/boot.png") as picture:
        assert picture.size == (12 * 28, 12 * 28 + 48)
        upper = torch.from_numpy(np.array(picture)[: 12 * 28 : 12, ::12, 0])
        below = np.array(picture)[12 * 28 :]
    assert torch.equal(upper, pixels)
    bars = (below == (0xCF, 0xE3, 0xF5)).all(2).any(0).nonzero()[0]
    assert bars.max() == pytest.approx(max(row["classes"].values()) * 335, abs=1)
    assert run("predict", "in", *options) == 0
    assert str(trained / "predictions" / "boot.png") in capsys.readouterr().out
    before = Path("in/boot.png").read_bytes()
    assert run("predict", "in", *options, "--output=in") == 2
    assert "in/boot.png would be overwritten: choose another folder" in capsys.readouterr().err
    assert Path("in/boot.png").read_bytes() == before
    assert run("predict", "--data=EmbeddedFashionMNIST", *options) == 2
    assert "name files or folders" in capsys.readouterr().err


def test_predict_on_a_data_set(trained: Path, run: Run, data_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--data=FashionMNIST", f"--data.root={data_root}", "--json")
    assert run("predict", *options, f"--ckpt_path={checkpoint(trained)}") == 0
    assert len(json.loads(capsys.readouterr().out)) == 20


# -- bad input: one line, exit code 2 -------------------------------------------------------------------------------

BAD = {
    "unknown verb": (["fti"], "did you mean 'fit'"),
    "unknown option": (["fit", "--nope=1"], "--nope"),
    "unknown model option": (["fit", "--model.nope=1"], "nope"),
    "unknown field": (["fit", "--model.overrides.nope=1"], "'nope' is no field"),
    "unknown data": (["fit", "--data=Foo"], "no class Foo is known"),
    "wrong type": (["fit", "--trainer.max_epochs=x"], "Expected a int; given x"),
    "wrong choice": (["fit", "--data.augment=x"], "'none', 'flip'"),
    "notation": (["fit", "--model.variant=WaveMix-8/5"], "level is missing"),
    "dim": (["fit", "--model.variant=WaveMix-Lite-6/5"], "dim must be divisible by 4"),
    "no config": (["fit", "--config=nope.yaml"], "nope.yaml"),
    "no data": (["fit", "--data=FashionMNIST", "--data.root=nowhere"], "download=true"),
    "batch size": (["fit", "--data.batch_size=-3"], "batch_size"),
    "switch": (["fit", "--trainer.max_epochs=9", "--trainer.callbacks+=OptimizerSwitch"], "final_epochs 50"),
    "lightning": (["fit", "--trainer.max_epochs=1", "--trainer.limit_train_batches=-1.5"], "limit_train_batches"),
    "no checkpoint": (["test"], "--ckpt_path"),
    "best of what": (["test", "--ckpt_path=best"], "--ckpt_path=RUN/checkpoints/best.ckpt"),
    "best of nothing": (["test", "--ckpt_path=best", "--trainer.default_root_dir=nope"], "best.ckpt: no such"),
    "absent checkpoint": (["test", "--ckpt_path=nope.ckpt"], "nope.ckpt: no such checkpoint"),
    "no checkpoint at all": (["test", "--ckpt_path=text.ckpt"], "text.ckpt: damaged"),
    "code": (["test", "--ckpt_path=evil.ckpt"], "loading it would run code (posix.system)"),
    "no images": (["predict", "nope.png", "--ckpt_path={best}"], "nope.png: no such file"),
    "broken image": (["predict", "text.ckpt", "--ckpt_path={best}"], "text.ckpt: cannot be read as an image"),
    "other model": (["test", "--ckpt_path={best}", "--model.variant=WaveMix-Lite-16/5"], "not 'WaveMix-Lite-16/5'"),
    "other loss": (["test", "--ckpt_path={best}", "--model.label_smoothing=0.5"], "label_smoothing 0.0, not 0.5"),
}  # fmt: skip


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


@pytest.mark.parametrize("case", BAD)
def test_bad_input(
    case: str, run: Run, trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wavemix_pl.data.FashionMNIST.debian_folder", Path("nowhere"))
    Path("text.ckpt").write_text("no checkpoint")
    torch.save({"state_dict": Evil()}, "evil.ckpt")
    arguments, named = BAD[case]
    assert run(*(argument.format(best=checkpoint(trained)) for argument in arguments)) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("wavemix-pl: error: ")
    assert named in last
    assert not Path("ran").exists()
    assert not list(Path().rglob("*.ckpt")) or {path.name for path in Path().rglob("*.ckpt")} == {
        "text.ckpt",
        "evil.ckpt",
    }


def test_other_classes_than_the_checkpoint(trained: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("test", f"--ckpt_path={checkpoint(trained)}", "--data=tests.test_cli.TwoClasses") == 2
    assert "num_classes 10, TwoClasses has 2" in capsys.readouterr().err


class TwoClasses(EmbeddedFashionMNIST):
    class_names = ("yes", "no")


def test_debug_shows_the_traceback(run: Run) -> None:
    with pytest.raises(ValueError, match="fti"):
        run("--debug", "fti")


def test_public_names() -> None:
    import wavemix_pl

    assert wavemix_pl.create_model is create_model
    assert sorted(wavemix_pl.__all__) == ["WaveMixClassifier", "WaveMixConfig", "WaveMixSegmenter", "create_model"]
    with pytest.raises(AttributeError, match="nothing"):
        wavemix_pl.nothing  # noqa: B018
