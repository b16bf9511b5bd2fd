"""Focal loss in place of cross-entropy, on any module (Section 4.2)."""

from __future__ import annotations

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from wavemix_pl.errors import InputError
from wavemix_pl.losses import FocalLoss


class FocalLossCallback(Callback):
    """Puts a `FocalLoss` in the place of the module's cross-entropy, with its void index and label smoothing.

    Install it wherever the loss is to be seen: without it, `validate` and `test` report the cross-entropy of a model
    that was trained with it. Nothing of it is in the checkpoint.

    Args:
        gamma: How much pixels or images that are known already are weighted down.
        weight: Of each class, or None.
        mean_first: The published code's: the factor is applied once, to the mean cross-entropy of the batch. For
            comparison only.

    Raises:
        InputError: The module has no cross-entropy as its attribute `loss`, or another number of classes.
    """

    def __init__(self, gamma: float = 2.0, weight: list[float] | None = None, mean_first: bool = False) -> None:
        self.gamma, self.weight, self.mean_first = gamma, weight, mean_first
        FocalLoss(gamma)  # refuses a bad gamma now

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        # Not later: validate and test have no on_fit_start.
        loss = getattr(pl_module, "loss", None)
        if isinstance(loss, FocalLoss):
            return
        if not isinstance(loss, nn.CrossEntropyLoss):
            raise InputError(f"FocalLossCallback replaces a CrossEntropyLoss, this loss is a {type(loss).__name__}")
        classes = pl_module.hparams.get("num_classes")
        if self.weight is not None and classes is not None and len(self.weight) != classes:
            raise InputError(f"FocalLossCallback: {len(self.weight)} weights for {classes} classes")
        weight = loss.weight if self.weight is None else torch.tensor(self.weight)
        focal = FocalLoss(self.gamma, weight, loss.ignore_index, loss.label_smoothing, self.mean_first)
        pl_module.loss = focal.to(pl_module.device)
