"""Focal loss put on a module by a callback."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import nn

from wavemix_pl.callbacks import FocalLossCallback
from wavemix_pl.errors import InputError
from wavemix_pl.losses import FocalLoss, focal_loss
from wavemix_pl.modules import ClassificationModule, SegmentationModule


def install(module: L.LightningModule, callback: FocalLossCallback, stage: str = "fit") -> Any:
    callback.setup(L.Trainer(logger=False, accelerator="cpu"), module, stage)
    return module.loss


@pytest.mark.parametrize("stage", ["fit", "validate", "test"])
def test_takes_void_and_smoothing_from_the_module(stage: str) -> None:
    module = SegmentationModule(num_classes=3, void_index=3, label_smoothing=0.1)
    loss = install(module, FocalLossCallback(gamma=1.5, weight=[1.0, 2.0, 3.0]), stage)
    assert isinstance(loss, FocalLoss)
    logits, targets = torch.randn(1, 3, 4, 4), torch.randint(0, 4, (1, 4, 4))
    expected = focal_loss(logits, targets, 1.5, torch.tensor([1.0, 2.0, 3.0]), 3, 0.1)
    torch.testing.assert_close(loss(logits, targets), expected)


def test_on_a_classifier_and_twice() -> None:
    module = ClassificationModule("WaveMix-Lite-4/1")
    callback = FocalLossCallback()
    first = install(module, callback)
    assert install(module, callback, "test") is first


def test_mean_first() -> None:
    loss = install(ClassificationModule("WaveMix-Lite-4/1"), FocalLossCallback(mean_first=True))
    logits, targets = torch.randn(4, 10), torch.arange(4)
    torch.testing.assert_close(loss(logits, targets), focal_loss(logits, targets, mean_first=True))


def test_refused() -> None:
    with pytest.raises(InputError, match="gamma"):
        FocalLossCallback(gamma=-1)
    with pytest.raises(InputError, match="2 weights for 10 classes"):
        install(ClassificationModule("WaveMix-Lite-4/1"), FocalLossCallback(weight=[1.0, 2.0]))
    module = ClassificationModule("WaveMix-Lite-4/1")
    module.loss = nn.MSELoss()
    with pytest.raises(InputError, match="MSELoss"):
        install(module, FocalLossCallback())


def test_by_the_command_line_and_loaded_without_it(
    run: Callable[..., int], data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ("--data=FashionMNIST", f"--data.root={data_root}")
    options = ("--model.variant=WaveMix-Lite-4/1", "--trainer.max_epochs=1", "--trainer.default_root_dir=run")
    assert run("fit", *data, *options, "--trainer.callbacks+=FocalLossCallback", "--trainer.callbacks.gamma=3") == 0
    losses = []
    for more in ((), ("--trainer.callbacks+=FocalLossCallback",)):
        assert run("test", *data, "--ckpt_path=run/checkpoints/last.ckpt", *more) == 0
        found = re.search(r"test_loss\s+(\d+\.\d+)", capsys.readouterr().out)
        assert found is not None
        losses.append(float(found[1]))
    assert losses[1] < losses[0]
