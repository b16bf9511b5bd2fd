"""--model.weights and --model.backbone on the command line: files and published names, with and without a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from tests.test_modules import trainer
from wavemix_pl.data import FashionMNIST, generated
from wavemix_pl.models.wavemix import create_model
from wavemix_pl.modules import ClassificationModule

Run = Callable[..., int]


@pytest.fixture
def options(data_root: Path) -> tuple[str, ...]:
    """The data, and a small model for them."""
    data = ("--data=FashionMNIST", f"--data.root={data_root}", "--data.val_fraction=0.25", "--data.batch_size=20")
    return (*data, "--model.variant=WaveMix-Lite-4/1", "--trainer.accelerator=cpu")


@pytest.fixture
def weights(run: Run) -> dict[str, torch.Tensor]:
    """What is in the file weights.pth of the working directory."""
    module = ClassificationModule("WaveMix-Lite-4/1", in_channels=1)
    torch.save(module.model.state_dict(), "weights.pth")
    return module.model.state_dict()


WEIGHTS = "--model.weights=weights.pth"


def test_fit(run: Run, options: Any, weights: dict[str, torch.Tensor], caplog: pytest.LogCaptureFixture) -> None:
    """The whole model is taken; a run that goes on has weights of its own, and does not look for the file."""
    fit = ("fit", *options, WEIGHTS, "--model.optimizer=SGD", "--model.optimizer.lr=0", "--trainer.default_root_dir=r")
    assert run(*fit, "--trainer.max_epochs=1") == 0
    assert "weights from weights.pth: 19 tensors taken" in caplog.text
    state = torch.load("r/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    taken = [name for name in weights if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    for name in taken:
        assert torch.equal(state[f"model.{name}"], weights[name]), name
    Path("weights.pth").unlink()
    caplog.clear()
    assert run(*fit, "--trainer.max_epochs=2", "--ckpt_path=last") == 0
    assert "weights from weights.pth" not in caplog.text
    assert run("test", *options, "--ckpt_path=r/checkpoints/last.ckpt", WEIGHTS) == 0
    assert "weights from weights.pth" not in caplog.text


def test_without_a_run(
    run: Run, options: Any, weights: Any, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The metrics are those of the weights; a test leaves its report in a directory below runs, and nothing else."""
    assert run("test", *options, WEIGHTS) == 0
    report = json.loads(Path("runs/FashionMNIST-weights-weights/test.json").read_text())
    assert report["checkpoint"] is None
    assert run("validate", *options, WEIGHTS) == 0
    assert "val_acc1" in capsys.readouterr().out
    assert run("predict", *options, WEIGHTS, "--json") == 0
    assert len(json.loads(capsys.readouterr().out)) == 20
    assert {path.name for path in Path().iterdir()} == {"weights.pth", "runs"}
    assert {path.name for path in Path("runs").glob("*/*")} <= {"test.json", ".lock"}
    module = ClassificationModule("WaveMix-Lite-4/1", in_channels=1)
    module.model.load_state_dict(weights)
    data = FashionMNIST(root=str(data_root), batch_size=20)
    (expected,) = trainer().test(module, datamodule=data, verbose=False)
    assert report["metrics"] == pytest.approx(expected)


def test_a_segmenter_without_a_run(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    model = create_model("WaveMix-8/1 (level 2)", 11, "segmentation", in_channels=1)
    torch.save(model.state_dict(), "weights.pth")
    data = ("--data=FashionScenes", "--data.scenes=8", "--data.val_scenes=4", "--data.test_scenes=4")
    module = ("--model=SegmentationModule", "--model.variant=WaveMix-8/1 (level 2)")
    assert run("test", *data, *module, WEIGHTS) == 0
    assert "test_miou" in capsys.readouterr().out


def test_published_names(
    run: Run, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name tells its model, unless another one is asked for."""
    monkeypatch.setenv("WAVEMIX_PL_WEIGHTS", "own")
    Path("own/cifar10").mkdir(parents=True)
    torch.save(create_model("WaveMix-Lite-144/7", 10).state_dict(), "own/cifar10/cifar10_94.58.pth")
    generated.write_dataset("CIFAR10", Path("data"), images=20)
    data = ("--data=CIFAR10", "--data.root=data", "--trainer.limit_test_batches=1", "--data.batch_size=2")
    name = "cifar10/wavemix-lite-144-7"
    assert run("test", *data, f"--model.weights={name}") == 0
    assert f"weights from {name}: " in caplog.text
    assert Path("runs/CIFAR10-weights-wavemix-lite-144-7/test.json").is_file()
    small = ("--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1", "--trainer.max_epochs=1")
    probe = (f"--model.backbone={name}", "--model.freeze=backbone", "--model.overrides.dropout=0.1")
    assert run("fit", *data, *small, *probe, "--trainer.default_root_dir=probe") == 0
    model = yaml.safe_load(Path("probe/config.yaml").read_text())["model"]["init_args"]
    assert model["variant"] == "WaveMix-Lite-144/7"
    assert model["overrides"] == {"stem": "strided", "stride": 1, "dropout": 0.1}
    assert run("test", *data, "--ckpt_path=probe/checkpoints/best.ckpt") == 0
    assert run("test", *data, f"--model.weights={name}", "--model.variant=WaveMix-Lite-8/1") == 2
    assert f"{name}: " in capsys.readouterr().err


def test_refusals(run: Run, options: Any, weights: Any, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("L", (28, 28)).save("image.png")
    torch.save(ClassificationModule("WaveMix-Lite-4/1", 3, 1).model.state_dict(), "three.pth")
    for arguments, named in (
        (["test", *options], "or --model.weights=FILE_OR_NAME"),
        (["test", *options, "--ckpt_path=best", WEIGHTS], "pass --ckpt_path=RUN"),
        (["predict", "image.png", *options[-2:], WEIGHTS], "weights alone do not say how image files are prepared"),
        (["predict", "image.png", "--model.weights=nowhere.pth"], "nowhere.pth: no such file"),
        (["predict", "image.png", "--model.weights=fashion-mnist/wavemix-12"], "the nearest name is 'fashion-mnist/"),
        (["test", *options, WEIGHTS, "--model.backbone=weights.pth"], "give one of them"),
        (["test", *options, "--model.weights=nowhere.pth"], "nowhere.pth: no such"),
        (["test", *options, "--model.weights=cifar10/wavemix"], "the nearest name is"),
        (["fit", *options, "--model.weights=three.pth"], "backbone in the place of weights"),
        (["fit", *options, "--model.freeze=stem"], "'none', 'backbone'"),
    ):
        assert run(*arguments) == 2, arguments
        assert named in capsys.readouterr().err.splitlines()[-1]
    assert not Path("runs").exists() or not list(Path("runs").iterdir())


def test_a_probe_goes_on_as_one(run: Run, options: Any, weights: Any) -> None:
    """Also where the option is forgotten; another one is refused."""
    fit = ("fit", *options, WEIGHTS, "--trainer.default_root_dir=r")
    assert run(*fit, "--model.freeze=backbone", "--trainer.max_epochs=1") == 0
    assert run(*fit, "--trainer.max_epochs=2", "--ckpt_path=last") == 0
    state = torch.load("r/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    moved = {name for name in weights if not torch.equal(state[f"model.{name}"], weights[name])}
    assert moved == {"head.linear.weight", "head.linear.bias"}
    assert run(*fit, "--trainer.max_epochs=3", "--ckpt_path=last", "--model.freeze=none") == 2
