"""The end of a run whose numbers have gone wrong, before it has spoiled its checkpoints."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from wavemix_pl.callbacks.last_checkpoint import LastCheckpoint
from wavemix_pl.callbacks.random_state import of_all_processes
from wavemix_pl.errors import InputError

_NAMED = 16  # so many images of a batch a message names


@dataclass(frozen=True)
class _Batch:
    """What is to be said of a batch; its loss on the host, once `event` has happened there."""

    epoch: int
    index: int
    step: int
    rate: Any
    loss: Tensor
    event: torch.cuda.Event | None


class FiniteLoss(Callback):
    """Stops training at a loss that is NaN or infinite, or leaves the step out.

    It says batch, epoch, step, learning rate, the images where the loader knows them, and the last good checkpoint. No
    checkpoint is written with weights that are not finite. Without this, a run would go on to its end: torchmetrics
    leaves NaN out of the mean loss.

    Looking costs no wait for the device: the losses come to the host while it computes, and are looked at as soon as
    they are there, at the latest before a checkpoint or at the end of an epoch. Several processes agree after each
    step, where Lightning waits for a message anyway (2.6). Skipping has to know before a step whether to make it, and
    waits for the device once in a step; weights that were right stay right, batch norm's statistics too. A step is left
    out on all processes, and with all batches whose gradients it would have summed up. Learning rate schedules go on.
    In 16-mixed the gradient scaler leaves out such steps itself, and besides them those whose gradients alone are not
    finite, which is its way to find a scale and is not counted here.

    Args:
        skip: How many steps a run may leave out before it stops; logged as `skipped_steps`. 0 stops at the first.

    Raises:
        InputError: At such a loss, or before a checkpoint with such weights.
    """

    def __init__(self, skip: int = 0) -> None:
        if skip < 0:
            raise InputError(f"finite_loss.skip must be at least 0, got {skip}")
        self.skip, self.skipped = skip, 0
        self._on_the_way: deque[_Batch] = deque()
        self._rate: Any = None
        self._wrong: _Batch | None = None  # the first such batch of the step in progress
        self._leave_out = False  # the step in progress
        self._buffers: list[Tensor] = []  # before the batch

    def state_dict(self) -> dict[str, Any]:
        return {"skipped": self.skipped} if self.skip else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.skipped = state_dict.get("skipped", 0)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._on_the_way.clear()
        self._wrong, self._leave_out = None, False

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._rate = trainer.optimizers[0].param_groups[0]["lr"]  # schedulers change it before the batch ends
        if self.skip:
            self._buffers = [buffer.clone() for buffer in pl_module.buffers()]

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        if self.skip and not torch.isfinite(loss).all():
            for buffer, before in zip(pl_module.buffers(), self._buffers, strict=True):
                buffer.data.copy_(before)
            self._wrong = self._wrong or self._batch(trainer, trainer.fit_loop.epoch_loop.batch_idx, loss)

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        if self.skip and trainer.strategy.reduce_boolean_decision(self._wrong is not None, all=False):
            self._leave_out = True
            if getattr(trainer.precision_plugin, "scaler", None) is None:
                for group in optimizer.param_groups:
                    for parameter in group["params"]:
                        parameter.grad = None  # optimizers leave such a parameter as it is, their own state too

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if self.skip:
            if self._leave_out:
                self.skipped += 1
                self._say(trainer, self._wrong, stop=self.skipped > self.skip)
                self._wrong, self._leave_out = None, False
        elif isinstance(loss, Tensor) and trainer.world_size > 1:
            wrong = not torch.isfinite(loss).all()
            if trainer.strategy.reduce_boolean_decision(wrong, all=False):
                self._say(trainer, self._batch(trainer, batch_idx, loss) if wrong else None, stop=True)
        elif isinstance(loss, Tensor):
            self._on_the_way.append(self._batch(trainer, batch_idx, loss))
            self._look(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._look(trainer, wait=True)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._look(trainer, wait=True)
        if self.skip:
            pl_module.log("skipped_steps", float(self.skipped), batch_size=1)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._look(trainer, wait=True)
        wrong = next((name for name, value in checkpoint["state_dict"].items() if not _finite(value)), None)
        name = next(filter(None, of_all_processes(wrong)), None)  # with FSDP the first process alone has the weights
        if name:
            raise InputError(
                f"{name} is not finite after step {trainer.global_step}, and not saved: {_advice(trainer)}"
            )

    def _batch(self, trainer: L.Trainer, index: int, loss: Tensor) -> _Batch:
        event = None
        if loss.is_cuda:
            host = torch.empty(loss.shape, dtype=loss.dtype, pin_memory=True)
            loss = host.copy_(loss.detach(), non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        return _Batch(trainer.current_epoch, index, trainer.global_step, self._rate, loss, event)

    def _look(self, trainer: L.Trainer, wait: bool = False) -> None:
        """At the losses that have arrived, or with `wait` at all."""
        while self._on_the_way:
            batch = self._on_the_way[0]
            if batch.event is not None and not batch.event.query():
                if not wait:
                    return
                batch.event.synchronize()
            self._on_the_way.popleft()
            if not torch.isfinite(batch.loss).all():
                self._on_the_way.clear()
                self._say(trainer, batch, stop=True)

    def _say(self, trainer: L.Trainer, batch: _Batch | None, stop: bool) -> None:
        """All processes must come here, with None where their batches were good."""
        said = "; ".join(filter(None, of_all_processes(_describe(trainer, batch) if batch else None)))
        if not stop:
            rank_zero_warn(f"step left out, {self.skipped} of at most {self.skip}: {said}")
            return
        allowed = f", after {self.skip} steps that were left out (finite_loss.skip)" if self.skip else ""
        raise InputError(f"{said}{allowed}: {_advice(trainer)}")


def _finite(value: Any) -> bool:
    return not isinstance(value, Tensor) or not value.is_floating_point() or bool(torch.isfinite(value).all())


def _describe(trainer: L.Trainer, batch: _Batch) -> str:
    images_of = getattr(trainer.train_dataloader, "images_of", None)
    images = images_of(batch.index) if images_of else []
    more = f" and {len(images) - _NAMED} more" if len(images) > _NAMED else ""
    named = f", training images {', '.join(map(str, images[:_NAMED]))}{more}" if images else ""
    return (
        f"loss {float(batch.loss)} in batch {batch.index} of epoch {batch.epoch} (step {batch.step}, learning rate "
        f"{float(batch.rate):.3g}{named})"
    )


def _advice(trainer: L.Trainer) -> str:
    last = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, LastCheckpoint)]
    files = [*(callback.best_model_path for callback in last), trainer.ckpt_path]
    good = next((file for file in files if file and Path(file).exists()), None)
    return (
        f"{f'the last good checkpoint is {good}' if good else 'there is no checkpoint yet'}. Lower the learning rate, "
        "clip gradients (--trainer.gradient_clip_val=1), look at the images, or leave such steps out "
        "(--finite_loss.skip=10)"
    )
