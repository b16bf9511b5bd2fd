"""A frozen backbone: only the head learns, whatever else is chosen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from tests.test_modules import trainer
from wavemix_pl.callbacks import OptimizerSwitch
from wavemix_pl.data import FashionMNIST, FashionScenes
from wavemix_pl.freezing import backbone_parts, freeze, settle_modes
from wavemix_pl.models.wavemix import create_model
from wavemix_pl.modules import ClassificationModule, SegmentationModule

VARIANT: dict[str, Any] = {"variant": "WaveMix-8/2 (level 2)", "in_channels": 1}


class Saved(Callback):
    """Sizes of what the forward pass of a training step keeps for the backward pass, parameters apart."""

    def __init__(self) -> None:
        self.numel: list[int] = []

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        own = {parameter.data_ptr() for parameter in pl_module.parameters()}

        def pack(tensor: Tensor) -> Tensor:
            if tensor.data_ptr() not in own:
                self.numel.append(tensor.numel())
            return tensor

        self.hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
        self.hooks.__enter__()

    def on_train_batch_end(self, *_: Any) -> None:
        self.hooks.__exit__(None, None, None)


def train(module: L.LightningModule, data_root: Path, *callbacks: Callback, epochs: int = 2, **more: Any) -> L.Trainer:
    run = trainer(max_epochs=epochs, callbacks=[*callbacks], **more)
    run.fit(module, datamodule=FashionMNIST(root=str(data_root), batch_size=20, val_fraction=0.25))
    return run


def changed(before: dict[str, Tensor], module: L.LightningModule) -> set[str]:
    """Names of what training changed: parameters, batch norm statistics, numbers of batches."""
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


def copy(module: L.LightningModule) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


HEAD = {"model.head.linear.weight", "model.head.linear.bias"}


@pytest.mark.parametrize("execution", ["plain", "fast", "lean", "checkpointed", "compiled"])
@pytest.mark.parametrize("stem", ["strided", "patchify"])
def test_linear_probe(data_root: Path, execution: Any, stem: str, compiler: None) -> None:
    how = {"compile": True} if execution == "compiled" else {"execution": execution}
    module = ClassificationModule(**VARIANT, **how, overrides={"stem": stem}, freeze="backbone")
    before = copy(module)
    switch, saved = OptimizerSwitch(final_epochs=1), Saved()
    run = train(module, data_root, switch, *(() if execution == "compiled" else (saved,)))
    assert switch.switched
    assert changed(before, module) == HEAD
    assert len(run.optimizers[0].state) == len(HEAD)
    if execution != "compiled":
        assert 0 < max(saved.numel) <= 20 * 10  # logits of 20 images, and nothing of the size of a map


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """torch.compile without its slow backend."""
    compile = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compile(self, backend="aot_eager"))
    yield
    torch._dynamo.reset()


def test_linear_probe_of_a_segmenter() -> None:
    module = SegmentationModule(**VARIANT, num_classes=11, freeze="backbone")
    before = copy(module)
    trainer(max_epochs=1).fit(module, datamodule=FashionScenes(scenes=8, val_scenes=4, test_scenes=1, batch_size=4))
    assert {name.split(".")[1] for name in changed(before, module) if name.startswith("model.")} == {"head"}


def test_weight_decay_leaves_the_frozen_parts_alone(data_root: Path) -> None:
    for optimizer in (torch.optim.AdamW, torch.optim.SGD):
        module = ClassificationModule(
            **VARIANT, freeze="backbone", optimizer=lambda p, make=optimizer: make(p, lr=0.1, weight_decay=0.5)
        )
        before = copy(module)
        train(module, data_root, epochs=1)
        assert changed(before, module) == HEAD


def test_what_is_in_training_mode(data_root: Path, recwarn: pytest.WarningsRecorder) -> None:
    """From the first step on, also after a validation; and Lightning has nothing to warn of."""

    class Modes(Callback):
        seen: set[tuple[bool, ...]] = set()

        def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
            model = pl_module.model
            parts = [part.training for part in (*backbone_parts(model), model.blocks, model.head)]  # type: ignore[arg-type,union-attr]  # a WaveMix
            self.seen.add(tuple(parts))
            norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]  # type: ignore[union-attr]
            assert not any(norm.training for norm in norms)

    modes = Modes()
    train(ClassificationModule(**VARIANT, freeze="backbone"), data_root, modes)
    assert modes.seen == {(False, False, False, False, True)}
    assert not [warning for warning in recwarn if "eval mode" in str(warning.message)]


def test_a_checkpoint_of_a_probe_is_not_frozen_for_inference(data_root: Path, tmp_path: Path) -> None:
    """It says how it was trained, and a module that is loaded from it is frozen when it is trained, not before."""
    module = ClassificationModule(**VARIANT, freeze="backbone")
    train(module, data_root, epochs=1).save_checkpoint(tmp_path / "probe.ckpt")
    loaded = ClassificationModule.load_from_checkpoint(tmp_path / "probe.ckpt", weights_only=True)
    assert loaded.hparams["freeze"] == "backbone"
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    whole = ClassificationModule.load_from_checkpoint(tmp_path / "probe.ckpt", weights_only=True, freeze="none")
    before = copy(whole)
    train(whole, data_root, epochs=1)
    assert {"model.stem.0.weight", "model.blocks.0.reduce.weight"} <= changed(before, whole)


def test_in_part() -> None:
    model = create_model("WaveMix-Lite-8/3", num_classes=10)
    for trained, expected in ((0, [0, 0, 0, 0]), (2, [0, 0, 1, 1]), (4, [1, 1, 1, 1])):
        freeze(model, trained)
        settle_modes(model)
        parts = backbone_parts(model)
        assert [part.training for part in parts] == expected
        assert [all(p.requires_grad for p in part.parameters()) for part in parts] == expected
        assert model.blocks.training == bool(trained)
        assert all(p.requires_grad for p in model.head.parameters())
