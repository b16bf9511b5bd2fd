"""Predictions, confusion matrix and IoU of each class while a run trains, where people look at it."""

from __future__ import annotations

from importlib.util import find_spec
from time import perf_counter
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from wavemix_pl.callbacks.boards import boards, show_numbers, show_picture
from wavemix_pl.errors import InputError
from wavemix_pl.pictures import classes_at, denormalize, draw_confusion, draw_predictions, draw_segmentation


class TrainingPictures(Callback):
    """Shows TensorBoard or W&B, after a validation, some validation images with what is predicted, and all confusions.

    For segmentation there is also the IoU of each class, after every validation. Nothing is computed twice: the
    module's own logits are counted. Where no logger of the run shows pictures, or the data do not name their classes,
    this does nothing.

    Args:
        images: Number of images shown; of those with masks a quarter.
        budget: Share of the run's time that drawing may take. A validation that comes before it has been saved up has
            no pictures; with 1 all have. The first ones come after a minute; then it depends on how long drawing takes.

    Raises:
        InputError: matplotlib is not installed, or a number out of range.
    """

    def __init__(self, images: int = 16, budget: float = 0.02) -> None:
        if find_spec("matplotlib") is None:
            raise InputError("TrainingPictures needs matplotlib: pip install 'wavemix_pl[plots]'")
        if images < 1 or not 0 < budget <= 1:
            raise InputError(f"TrainingPictures: images at least 1, budget above 0 up to 1, got {images} and {budget}")
        self.images, self.budget = images, budget
        self._started = self._spent = 0.0
        self._cost = 1.0  # of drawing once, in seconds; a guess until it was measured
        self._due = False
        self._sample: tuple[Tensor, Tensor, Tensor] | None = None
        self._counts: Tensor | None = None  # (K, K), rows of the true class

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._started, self._spent = perf_counter(), 0.0

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._sample = self._counts = None
        data = _facts(trainer)
        if data and getattr(pl_module, "task", None) == "classification":  # on all ranks, even one without images
            classes = len(data["class_names"])
            self._counts = torch.zeros(classes, classes, dtype=torch.int64, device=pl_module.device)
        saved_up = self.budget * (perf_counter() - self._started)
        self._due = self.budget == 1 or self._spent + self._cost <= saved_up

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        data = _facts(trainer)
        if not isinstance(outputs, Tensor) or not data:
            return
        images, targets = batch
        if self._counts is not None:
            classes = len(self._counts)
            cells = (targets * classes + outputs.argmax(1)).bincount(minlength=classes**2)
            self._counts += cells.view(classes, classes)
        if batch_idx == 0 and self._due and (outputs.ndim == 2 or data["colors"]):
            count = self.images if outputs.ndim == 2 else max(1, self.images // 4)
            logits = outputs[:count].float()
            predicted = logits.argmax(1) if outputs.ndim == 2 else classes_at(logits, targets.shape[-2:])
            self._sample = images[:count].float().cpu(), targets[:count].cpu(), predicted.cpu()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data = _facts(trainer)
        if not data:
            return
        counts = self._counts
        if counts is not None:
            counts = cast(Tensor, trainer.strategy.reduce(counts, reduce_op="sum"))
        else:
            counts = getattr(pl_module, "confusion", None)  # of all ranks already
        if counts is None or not trainer.is_global_zero or not boards(trainer):
            return
        iou = getattr(pl_module, "class_iou", None)
        if iou is not None:
            values = zip(data["class_names"], iou.tolist(), strict=True)
            show_numbers(trainer, {f"val_iou/{name}": value for name, value in values if value == value})
        if self._sample is None:
            return
        begun = perf_counter()
        show_picture(trainer, "val_confusion", draw_confusion(counts.cpu(), data["class_names"]))
        show_picture(trainer, "val_predictions", _draw(self._sample, data))
        self._cost = perf_counter() - begun
        self._spent += self._cost


def _facts(trainer: L.Trainer) -> dict[str, Any]:
    """What the data say of themselves; nothing if they do not, or if this is no validation within training."""
    known: dict[str, Any] = getattr(getattr(trainer, "datamodule", None), "preprocessing", None) or {}
    shows = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking and "class_names" in known
    return known if shows else {}


def _draw(sample: tuple[Tensor, Tensor, Tensor], data: dict[str, Any]) -> Any:
    images, targets, predicted = sample
    shown, names = denormalize(images, data), data["class_names"]
    if targets.ndim == 1:
        return draw_predictions(shown, targets.tolist(), predicted.tolist(), names)
    return draw_segmentation(shown, targets, predicted, names, data["colors"], data["void_index"])
