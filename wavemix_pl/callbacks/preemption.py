"""The end of a run that its scheduler asks for."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException

from wavemix_pl.callbacks.last_checkpoint import LastCheckpoint
from wavemix_pl.errors import InputError

_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]  # Windows lacks one


class Preempted(SIGTERMException):
    """Ends the process, with 128 + the number of a signal as the exit code."""


class Preemption(Callback):
    """Ends a run that gets SIGTERM or SIGUSR1 with a checkpoint, from which it goes on as if it had never stopped.

    `LastCheckpoint` writes it after the step in progress; where validation or the end of the epoch follows that step,
    after these. All processes of a run stop at one step, whichever of them the signal was sent to. The exit code is
    128 + the number of the signal (143 for SIGTERM, 138 for SIGUSR1 on Linux), as if it had killed the process: a
    scheduler's sign that there is more to do. A run that comes to its end meanwhile exits with 0. Further signals
    change nothing, so that none interrupts the writing.

    Lightning's own handlers are replaced: in SLURM they write another checkpoint in the middle of a step, and with
    several processes they send messages in between the model's.

    Raises:
        InputError: The trainer has no LastCheckpoint.
        Preempted: The checkpoint is written.
    """

    def __init__(self) -> None:
        self._received = self._agreed = 0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._received = self._agreed = 0
        if stage == "fit":
            _checkpoint(trainer)

    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._listen()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._listen()

    def _listen(self) -> None:
        """After Lightning, which puts back at the end what there was before it."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = number

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._agreed:
            return
        if trainer.world_size > 1:
            # Costs no further wait for the device: Lightning waits for a message of its own before each step (2.6).
            received = torch.tensor(self._received, device=trainer.strategy.root_device)
            self._agreed = int(trainer.strategy.reduce(received, reduce_op="max"))
        else:
            self._agreed = self._received
        if self._agreed:
            _checkpoint(trainer).ask()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._end(trainer)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._end(trainer)

    def _end(self, trainer: L.Trainer) -> None:
        checkpoint = _checkpoint(trainer)
        if not self._agreed or checkpoint.asked:
            return
        name, code = signal.Signals(self._agreed).name, 128 + self._agreed
        written = f"after step {trainer.global_step}; {checkpoint.best_model_path} is written"
        if trainer.is_global_zero:
            print(
                f"wavemix-pl: ended by {name} {written}, the same command with --ckpt_path=last goes on (exit {code})",
                file=sys.stderr,
            )
        environment = getattr(trainer.strategy, "cluster_environment", None)
        # Lightning kills the first process where it finds that another one that it has started has failed.
        started = isinstance(environment, LightningEnvironment) and not trainer.is_global_zero
        raise Preempted(0 if started else code)


def _checkpoint(trainer: L.Trainer) -> LastCheckpoint:
    found = next((callback for callback in trainer.checkpoint_callbacks if isinstance(callback, LastCheckpoint)), None)
    if found is None:
        raise InputError("Preemption needs LastCheckpoint among the trainer's callbacks, to write the checkpoint")
    return found
