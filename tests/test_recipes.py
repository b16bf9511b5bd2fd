"""The recipes of the paper's tables, by the command line, on tiny data in the real layout."""

from __future__ import annotations

import csv
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
import yaml
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from tests.conftest import write_cityscapes
from wavemix_pl.data import EmbeddedFashionMNIST, FashionMNIST
from wavemix_pl.modules import ClassificationModule

Run = Callable[..., int]
RECIPES = Path(__file__).parents[1] / "experiments" / "recipes"
ON_TOP_OF = {
    "as-published.yaml": "classification.yaml",
    "as-published-segmentation.yaml": "cityscapes.yaml",
    "trivial-augment.yaml": "classification.yaml",
    "several-gpus.yaml": "classification.yaml",
    "many-nodes.yaml": "classification.yaml",
    "fsdp.yaml": "classification.yaml",
    "adamw-alone.yaml": "fashion-claims.yaml",
    "focal.yaml": "fashion-scenes.yaml",
}
# what of them needs GPUs; tests/test_processes.py runs several processes
ONE_CPU = ("--trainer.devices=1", "--trainer.strategy=auto", "--trainer.sync_batchnorm=false", "--data.num_workers=0")
EVERY = pytest.mark.parametrize("recipe", sorted(path.name for path in RECIPES.glob("*.yaml")))


def configs(*recipes: str) -> list[str]:
    return [f"--config={RECIPES / recipe}" for recipe in recipes]


def stack(recipe: str) -> list[str]:
    """The recipe, on top of the one that it needs."""
    return configs(*(name for name in (ON_TOP_OF.get(recipe), recipe) if name))


def printed_config(run: Run, capsys: pytest.CaptureFixture[str], *arguments: Any) -> Any:
    with pytest.raises(SystemExit) as exit:
        run(*arguments, "--print_config")
    assert exit.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


@pytest.fixture
def backbone(tmp_path: Path) -> tuple[str, dict[str, Tensor]]:
    """A file with the weights of a small classifier of three classes, and the weights."""
    model = ClassificationModule("WaveMix-8/1 (level 3)", 3, 1, overrides={"stem": "patchify"}).model
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    return str(tmp_path / "weights.pth"), model.state_dict()


SMALL_CITYSCAPES = ("--data.root=cityscapes", "--data.image_size=[32,64]", "--data.num_workers=0")
SMALL_FINE_TUNING = (
    *("--model.variant=WaveMix-8/1 (level 3)", "--model.backbone=weights.pth"),
    *("--data.image_size=[32,32]", "--trainer.accelerator=cpu"),
)


@EVERY
def test_every_recipe_runs(run: Run, recipe: str, backbone: Any) -> None:
    write_cityscapes(Path("cityscapes"))
    few: tuple[str, ...] = SMALL_FINE_TUNING if recipe in ("fine-tuning.yaml", "linear-probe.yaml") else ()
    few = SMALL_CITYSCAPES if "cityscapes.yaml" in (recipe, ON_TOP_OF.get(recipe)) else few
    scenes = {"fashion-scenes.yaml", "quickstart-segmentation.yaml"} & {recipe, ON_TOP_OF.get(recipe)}
    few = ("--data.scenes=20",) if scenes else few
    few = ONE_CPU if recipe in ("several-gpus.yaml", "many-nodes.yaml", "fsdp.yaml") else few
    assert run("fit", *stack(recipe), "--trainer.fast_dev_run=1", "--data.batch_size=2", *few) == 0


@EVERY
def test_the_command_in_the_header(run: Run, recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It is what one types in the repository, and every option in it is known."""
    header = "".join(line[1:] for line in (RECIPES / recipe).read_text().splitlines(True) if line.startswith("#"))
    commands = re.findall(r"^   wavemix-pl (fit(?:.*\\\n)*.*)$", header, re.MULTILINE)
    assert commands
    for command in commands:
        arguments = shlex.split(command.replace("\\\n", " "))
        assert f"experiments/recipes/{recipe}" in arguments
        printed_config(run, capsys, *(a.replace("experiments/recipes", str(RECIPES)) for a in arguments))


def test_deltas_need_no_data_of_their_own(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Wherever the data is named, what the recipes say of it stays."""
    for arguments in (
        (*stack("trivial-augment.yaml"), "--data=CIFAR10", "--data.image_size=[64,64]"),
        ("--data=CIFAR10", "--data.image_size=[64,64]", *stack("trivial-augment.yaml")),
        (*configs("fine-tuning.yaml", "trivial-augment.yaml"), "--data=CIFAR10", "--data.image_size=[64,64]"),
    ):
        data = printed_config(run, capsys, "fit", *arguments)["data"]
        assert data["class_path"].endswith(".CIFAR10")
        chosen = {name: data["init_args"][name] for name in ("augment", "batch_size", "image_size")}
        assert chosen == {"augment": "trivial", "batch_size": 256, "image_size": [64, 64]}


# -- timm-script.yaml -----------------------------------------------------------------------------------------------

DECAY, EPOCHS, STEPS = 0.5, 4, 3


class States(Callback):
    """The weights after each step, in the order of the steps."""

    seen: list[dict[str, Tensor]] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self.seen.append({name: value.clone() for name, value in pl_module.state_dict().items()})


def timm_script(root: Path, run_directory: str, epochs: int = EPOCHS) -> list[str]:
    return [
        *configs("timm-script.yaml"),
        *("--data=FashionMNIST", f"--data.root={root}", "--data.batch_size=20", "--data.val_fraction=0.25"),
        *("--model.variant=WaveMix-Lite-8/1", f"--trainer.max_epochs={epochs}", "--trainer.accelerator=cpu"),
        *(f"--model.lr_scheduler.epochs={EPOCHS}", "--model.lr_scheduler.warmup_epochs=1"),
        *("--model.lr_scheduler.cooldown_epochs=1", f"--trainer.callbacks.decay={DECAY}"),
        *("--trainer.callbacks+=tests.test_recipes.States", "--trainer.callbacks+=LearningRateMonitor"),
        f"--trainer.default_root_dir={run_directory}",
    ]


def load(run_directory: str, kind: str = "last") -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(f"{run_directory}/checkpoints/{kind}.ckpt", weights_only=True)
    return checkpoint


def column(path: str, name: str) -> list[float]:
    with Path(path).open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


def loss_on_test_images(state: dict[str, Tensor], root: Path) -> float:
    module = ClassificationModule("WaveMix-Lite-8/1", in_channels=1).eval()
    module.load_state_dict(state)
    images = FashionMNIST(root=str(root)).load("test")
    with torch.no_grad():
        logits = module(EmbeddedFashionMNIST().normalize(images.images))  # type: ignore[attr-defined]
    return float(F.cross_entropy(logits, images.targets, label_smoothing=0.1))  # type: ignore[attr-defined]


def test_timm_script_tests_the_average(run: Run, data_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Weights and batch norm statistics, averaged by hand, are those that are validated, kept and tested."""
    States.seen = []
    assert run("fit", *timm_script(data_root, "run")) == 0
    assert len(States.seen) == EPOCHS * STEPS
    average = States.seen[0]
    for state in States.seen[1:]:
        average = {name: DECAY * average[name] + (1 - DECAY) * state[name] for name in state}
    last = load("run")
    floating = [name for name, value in last["state_dict"].items() if value.is_floating_point()]
    assert any(name.endswith("running_var") for name in floating)
    for name in floating:
        torch.testing.assert_close(last["state_dict"][name], average[name])
        torch.testing.assert_close(last["current_model_state"][name], States.seen[-1][name], rtol=0, atol=0)
    tested, current = (loss_on_test_images(last[key], data_root) for key in ("state_dict", "current_model_state"))
    assert abs(tested - current) > 5e-4  # else nothing would be shown below
    capsys.readouterr()
    test = (
        *configs("timm-script.yaml"),
        "--data=FashionMNIST",
        f"--data.root={data_root}",
        "--trainer.accelerator=cpu",
    )
    for options in (test, test[1:]):  # with the recipe, and without it
        assert run("test", *options, "--ckpt_path=run/checkpoints/last.ckpt") == 0
        found = re.search(r"test_loss\s+(\d+\.\d+)", capsys.readouterr().out)
        assert found is not None
        assert float(found[1]) == pytest.approx(tested, abs=1e-4)
    validate = ("--data=FashionMNIST", f"--data.root={data_root}", "--data.val_fraction=0.25")
    assert run("validate", *validate, "--ckpt_path=run/checkpoints/last.ckpt") == 0
    found = re.search(r"val_loss\D+(\d+\.\d+)", capsys.readouterr().out)
    assert found is not None
    assert float(found[1]) == pytest.approx(column("run/metrics.csv", "val_loss")[-1], abs=1e-5)


def test_timm_script_rates(run: Run, data_root: Path) -> None:
    assert run("fit", *timm_script(data_root, "run"), "--trainer.precision=bf16-mixed") == 0
    rates = column("run/metrics.csv", "lr-SGD")
    assert sorted(set(rates), key=rates.index) == pytest.approx([1e-4, 0.1, 0.0500005, 1e-6])


@pytest.mark.parametrize("kind", ["last", "best"])
def test_timm_script_goes_on(run: Run, data_root: Path, kind: str) -> None:
    """Current weights, average and schedule go on as in the run that was not interrupted."""
    assert run("fit", *timm_script(data_root, "whole")) == 0
    with pytest.warns(UserWarning, match="WarmupCosine has 4 epochs, the run 2"):
        assert run("fit", *timm_script(data_root, "parts", epochs=2)) == 0
    done = load("parts", kind)["epoch"] + 1
    States.seen = []
    assert run("fit", *timm_script(data_root, "parts"), f"--ckpt_path={kind}") == 0
    assert len(States.seen) == (EPOCHS - done) * STEPS
    whole, parts = load("whole"), load("parts")
    for part in ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers"):
        torch.testing.assert_close(parts[part], whole[part], rtol=0, atol=0)


# -- fine-tuning.yaml -----------------------------------------------------------------------------------------------


def test_fine_tuning(
    run: Run,
    data_root: Path,
    backbone: tuple[str, dict[str, Tensor]],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Stem and blocks are taken, the head is new; a resumed run takes nothing."""
    file, weights = backbone
    options = (
        *(*configs("fine-tuning.yaml", "trivial-augment.yaml"), *SMALL_FINE_TUNING, f"--model.backbone={file}"),
        *("--data=FashionMNIST", f"--data.root={data_root}", "--data.batch_size=20", "--data.val_fraction=0.25"),
        *("--trainer.default_root_dir=run", "--trainer.callbacks.final_epochs=1", "--model.optimizer.lr=0.0"),
    )
    assert run("fit", *options, "--trainer.max_epochs=2", "--trainer.callbacks.optimizer.lr=0.0") == 0
    assert f"backbone from {file}: 46 tensors taken; new: head.linear.weight" in caplog.text
    caplog.clear()
    state = load("run")["state_dict"]
    parameters = dict(
        ClassificationModule("WaveMix-8/1 (level 3)", 10, 1, {"stem": "patchify"}).model.named_parameters()
    )
    for name in parameters:
        if name.startswith("head."):
            assert len(state[f"model.{name}"]) == 10
        else:
            torch.testing.assert_close(state[f"model.{name}"], weights[name], rtol=0, atol=0)
    Path(file).unlink()
    assert run("fit", *options, "--trainer.max_epochs=3", "--ckpt_path=last") == 0
    assert "backbone from" not in caplog.text
    test = ("--data=FashionMNIST", f"--data.root={data_root}", "--data.image_size=[32,32]")
    assert run("test", *test, "--ckpt_path=run/checkpoints/best.ckpt") == 0
    assert "test_acc1" in capsys.readouterr().out


def test_fine_tuning_needs_its_weights(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # importing it fails: no network in tests
    assert run("fit", *configs("fine-tuning.yaml"), "--trainer.fast_dev_run=1") == 2
    message = capsys.readouterr().err
    assert "imagenet/wavemix-192-16-level3 needs huggingface_hub" in message
    assert "weights/ImageNet/wavemix_192_16_75.06.pth" in message


# -- linear-probe.yaml ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unfreeze", [False, True])
def test_linear_probe(run: Run, data_root: Path, backbone: tuple[str, dict[str, Tensor]], unfreeze: bool) -> None:
    """What is not the head is bit by bit what it was, batch norm statistics included; until it is unfrozen."""
    file, weights = backbone
    unfreezing = ("--trainer.callbacks+=GradualUnfreezing", "--trainer.callbacks.blocks_at_once=4") if unfreeze else ()
    options = (
        *(*configs("linear-probe.yaml"), *SMALL_FINE_TUNING, f"--model.backbone={file}", *unfreezing),
        *("--data=FashionMNIST", f"--data.root={data_root}", "--data.batch_size=20", "--data.val_fraction=0.25"),
    )
    assert run("fit", *options, "--trainer.max_epochs=2", "--trainer.default_root_dir=run") == 0
    state = load("run")["state_dict"]
    changed = {name for name in weights if not torch.equal(state[f"model.{name}"], weights[name])}
    assert {name.split(".")[0] for name in changed} == ({"head", "blocks"} if unfreeze else {"head"})


# -- as-published*.yaml ---------------------------------------------------------------------------------------------


def test_as_published(run: Run, data_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No epoch is the last; the best one is that of the test images, and it is where SGD begins."""
    data = ("--data=FashionMNIST", f"--data.root={data_root}", "--data.batch_size=20")
    fit = (*stack("as-published.yaml"), *data, "--model.variant=WaveMix-Lite-8/1", "--trainer.default_root_dir=run")
    assert run("fit", *fit, "--trainer.callbacks.patience=1", "--trainer.callbacks.stop_patience=1") == 0
    last, scores = load("run"), column("run/metrics.csv", "val_acc1")
    assert last["callbacks"]["OptimizerSwitch"]["switched"]
    assert len(scores) < 300
    assert last["global_step"] == 4 * len(scores)  # all 80 training images
    capsys.readouterr()
    assert run("test", *data, "--ckpt_path=run/checkpoints/best.ckpt") == 0
    found = re.search(r"test_acc1\s+(\d+\.\d+)", capsys.readouterr().out)
    assert found is not None
    assert float(found[1]) == pytest.approx(max(scores))


def test_as_published_segmentation(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    write_cityscapes(Path("cityscapes"))
    options = (*SMALL_CITYSCAPES, "--data.batch_size=3", "--model.variant=WaveMix-8/1 (level 2)")
    fit = (*stack("as-published-segmentation.yaml"), *options, "--trainer.default_root_dir=run")
    assert run("fit", *fit, "--trainer.max_epochs=2") == 0
    scores = {name: column("run/metrics.csv", f"val_{name}") for name in ("miou", "published_score", "loss")}
    last = load("run")
    assert last["callbacks"]["OptimizerSwitch"]["best_score"] == pytest.approx(max(scores["published_score"]))
    assert last["hyper_parameters"]["num_classes"] == 20
    assert last["global_step"] == 4  # all six training images
    capsys.readouterr()
    assert run("test", *stack("as-published-segmentation.yaml"), *options, "--ckpt_path=run/checkpoints/last.ckpt") == 0
    shown = capsys.readouterr().out
    for name, values in scores.items():
        found = re.search(rf"test_{name}\s+(\d+\.\d+)", shown)
        assert found is not None
        assert float(found[1]) == pytest.approx(values[-1], abs=1e-4)
