"""The change of the optimizer, where people look at a run."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch.optim import Optimizer

from wavemix_pl.callbacks.boards import boards, show_numbers, show_text


class OptimizerEvents(Callback):
    """Tells TensorBoard or W&B which optimizer a run begins with, and when another takes its place.

    The text `optimizer` says it in words, and the number `optimizer_switch` is the epoch, at the step of the change.
    """

    def __init__(self) -> None:
        self._last: Optimizer | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # of a resumed run the first part has told it
        self._last = trainer.optimizers[0] if trainer.global_step > 0 else None

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # not when an epoch starts: whether this callback or that which changes the optimizer comes first is not said
        current = trainer.optimizers[0]
        if current is self._last:
            return
        changed, self._last = self._last is not None, current
        if not trainer.is_global_zero or not boards(trainer):
            return
        rate = current.param_groups[0]["lr"]
        show_text(trainer, "optimizer", f"{type(current).__name__} (lr {rate:g}) from epoch {trainer.current_epoch} on")
        if changed:
            show_numbers(trainer, {"optimizer_switch": trainer.current_epoch}, coming=True)
