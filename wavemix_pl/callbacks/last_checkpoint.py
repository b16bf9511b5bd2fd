"""The checkpoint from which a run goes on after it was stopped, however it was stopped."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint

from wavemix_pl.checkpoint_file import PREVIOUS
from wavemix_pl.errors import disk_error

_UNFINISHED = ".part"  # at the end of the name of a file that is being written


class LastCheckpoint(ModelCheckpoint):
    """Writes one file, at the end of each epoch and, where it is asked to, within epochs.

    `every_n_train_steps` and `train_time_interval` add checkpoints within epochs to those at their ends. A run goes on
    from any of them as if it had never stopped. None is written after an epoch's last batch, nor where validation is
    due, which a run that goes on from there would leave out (Lightning 2.6): the end of the epoch, or the next step,
    has it instead.

    The checkpoint before it stays as `previous.ckpt`, for the case that the last one is damaged. The other arguments
    are those of ModelCheckpoint. Every checkpoint of a run with this callback is first written beside its place and
    then moved there at once, so that the file is whole whatever happens.

    Raises:
        InputError: The disk is full. Earlier checkpoints are as they were.
    """

    _due = False
    _step_before = 0
    _own = False  # whether the file in this checkpoint's place is of this run and whole

    @property
    def state_key(self) -> str:
        return type(self).__qualname__  # the same for another interval

    def state_dict(self) -> dict[str, Any]:
        # without a metric it remembers its path alone, which would tell where a run has been interrupted
        return super().state_dict() if self.monitor else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.monitor:
            super().load_state_dict(state_dict)

    def ask(self) -> None:
        """Asks for a checkpoint as soon as one can be written from which a run goes on exactly."""
        self._due = True

    @property
    def asked(self) -> bool:
        """Whether a checkpoint is due that has not been written yet."""
        return self._due

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = WholeFiles()
        if stage != "fit":
            return
        self._own = self._due = False
        if trainer.is_global_zero and self.dirpath:
            for unfinished in Path(self.dirpath).glob(f"*.ckpt{_UNFINISHED}"):  # of a process that was killed
                unfinished.unlink()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._step_before = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._step_before:
            return  # gradients are being accumulated, and no checkpoint has them
        self._due = self._due or self._is_due(trainer)
        if self._due and not _more_belongs_to(trainer) and not self._should_skip_saving_checkpoint(trainer):
            self._write(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not (self._every_n_train_steps or self._train_time_interval):
            super().on_train_epoch_end(trainer, pl_module)
        elif not self._should_skip_saving_checkpoint(trainer):
            self._write(trainer)

    def _is_due(self, trainer: L.Trainer) -> bool:
        if self._train_time_interval is None:
            return self._every_n_train_steps > 0 and trainer.global_step % self._every_n_train_steps == 0
        waited = time.monotonic() - (self._last_time_checked or 0.0)
        return bool(trainer.strategy.broadcast(waited >= self._train_time_interval.total_seconds()))

    def _save_checkpoint(self, trainer: L.Trainer, filepath: str) -> None:
        files, place = trainer.strategy.checkpoint_io, Path(filepath)
        if isinstance(files, WholeFiles):
            goes_on_from = trainer.ckpt_path and Path(trainer.ckpt_path).resolve() == place.resolve()
            own = self._own or goes_on_from  # else what lies there is damaged, or was given up
            files.moved = {place: place.with_stem(PREVIOUS)} if own else {}
        super()._save_checkpoint(trainer, filepath)
        self._own, self._due, self._last_time_checked = True, False, time.monotonic()

    def _write(self, trainer: L.Trainer) -> None:
        metrics = self._monitor_candidates(trainer)
        self._save_topk_checkpoint(trainer, metrics)
        self._save_last_checkpoint(trainer, metrics)


def _more_belongs_to(trainer: L.Trainer) -> bool:
    """Whether validation or the end of the epoch follows the batch that has just been trained."""
    loop, fetcher = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher
    assert fetcher is not None
    return loop._is_training_done or trainer.should_stop or loop._should_check_val_fx(fetcher)


class WholeFiles(TorchCheckpointIO):
    """Checkpoints that are whole or not there.

    Lightning writes them into the system's folder for temporary files; from there they are copied, if it lies on
    another disk.

    Attributes:
        moved: File -> where the old one goes when it is written anew.
    """

    def __init__(self) -> None:
        super().__init__()
        self.moved: dict[Path, Path] = {}

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        place = Path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        unfinished = place.with_name(f"{place.name}{_UNFINISHED}")
        try:
            with unfinished.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())  # else a power cut could leave an empty file in the old one's place
        except BaseException as error:
            unfinished.unlink(missing_ok=True)
            if full := disk_error(error, place):
                raise full from error
            raise
        if place in self.moved and place.exists():
            place.replace(self.moved[place])
        unfinished.replace(place)
