"""What else a run has that Lightning's checkpoints lack, so that it goes on as if it had never stopped."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from torchmetrics import Metric

from wavemix_pl.callbacks.random_state import of_all_processes
from wavemix_pl.errors import InputError
from wavemix_pl.metrics_file import MetricsFile

_KEY = "exact_resume"  # in checkpoints


class ExactResume(Callback):
    """Puts into checkpoints, and back when training goes on, what Lightning forgets.

    - What the metrics of an epoch have counted so far, where a checkpoint is written within the epoch; each process has
      its own counts.
    - The values of the metrics that were computed last, for schedulers and callbacks that watch them, and that a
      callback has ended the training.
    - The row of metrics that is written just after the checkpoint, and how long `metrics.csv` was.

    A scheduler that watches a metric (ReduceLROnPlateau) takes its step after the checkpoint: it is made up for, and so
    is its step at the end of an epoch that is gone on with, which Lightning leaves out.

    Raises:
        InputError: A checkpoint after an epoch's last batch but before its validation, from which Lightning would begin
            the next epoch; or one within an epoch, and this run's epochs have another number of batches.
    """

    def __init__(self) -> None:
        self._restored: dict[str, Any] | None = None

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            return
        within = _within_epoch(trainer)
        checkpoint[_KEY] = {
            "within_epoch": within,
            "batches": trainer.num_training_batches,
            "should_stop": trainer.should_stop,
            "callback_metrics": {name: value.detach().cpu() for name, value in trainer.callback_metrics.items()},
            "counts": of_all_processes(_counts(trainer, pl_module)) if within else [],
            "row": _row_to_come(trainer, within) if trainer.training else {},
            "rows": next((logger.rows for logger in _files(trainer)), 0),
        }

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            return
        self._restored = checkpoint.get(_KEY)
        batches = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        if batches["is_last_batch"] and batches["current"]["completed"] < batches["current"]["processed"]:
            raise InputError(
                f"{trainer.ckpt_path} was written between an epoch's last batch and its validation, which would be "
                "left out: go on from another checkpoint"
            )
        for callback in trainer.checkpoint_callbacks:
            state = checkpoint["callbacks"].get(callback.state_key, {})
            if isinstance(callback, ModelCheckpoint) and "current_score" in state:
                callback.current_score = state["current_score"]  # which it saves and does not load
        for logger in _files(trainer):
            logger.go_on(self._restored["rows"] if self._restored else 0)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Not earlier: the module resets its metrics when the fit begins.
        saved, self._restored = self._restored, None
        if saved is None:
            return
        if saved["within_epoch"] and saved["batches"] != trainer.num_training_batches:
            raise InputError(
                f"{trainer.ckpt_path} was written within an epoch of {saved['batches']} batches, here an epoch has "
                f"{trainer.num_training_batches}: go on with the same data, batch_size and limit_train_batches"
            )
        if len(saved["counts"]) == trainer.world_size:
            _count_on(pl_module, saved["counts"][trainer.global_rank])
        trainer.callback_metrics.update(
            {name: value.to(pl_module.device) for name, value in saved["callback_metrics"].items()}
        )
        trainer.should_stop = saved["should_stop"]
        _mend(trainer.fit_loop)
        trainer.fit_loop.epoch_loop.update_lr_schedulers(
            "step" if saved["within_epoch"] else "epoch", update_plateau_schedulers=True
        )
        if row := dict(saved["row"]):
            trainer._logger_connector.log_metrics(row, step=row.pop("step"))


def _mend(loop: Any) -> None:
    """Keeps Lightning's loop from leaving out or repeating parts of an epoch (2.6)."""
    loop._restarting = False  # with it, schedulers that watch a metric would make no step at this epoch's end
    if loop.restarted_on_epoch_end:  # with max_steps it takes a whole epoch for an unfinished one
        loop.epoch_loop.restarting = False
        loop.reset()


def _within_epoch(trainer: L.Trainer) -> bool:
    epochs: Any = trainer.fit_loop.epoch_progress.current
    return bool(epochs.ready > epochs.processed)


def _row_to_come(trainer: L.Trainer, within: bool) -> dict[str, float]:
    """What Lightning logs next: the metrics of the batch if it is its turn, or those of the epoch."""
    connector = trainer._logger_connector
    values = connector.metrics["log"] if connector.should_update_logs or not within else {}
    step = trainer.fit_loop.epoch_loop._batches_that_stepped - (not within)  # as Lightning counts it
    row = {name: float(value) for name, value in values.items()}
    return {"epoch": trainer.current_epoch, "step": step, **row} if row else {}


def _counts(trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
    """What each metric of a module has counted, where it has counted at all; without those of validation."""
    validation = {id(result.value) for result in trainer.fit_loop.epoch_loop.val_loop._results.values()}
    return {
        name: {"updates": metric.update_count, "state": _moved(metric.metric_state, torch.device("cpu"))}
        for name, metric in pl_module.named_modules()
        if isinstance(metric, Metric) and metric.update_called and id(metric) not in validation
    }


def _count_on(pl_module: L.LightningModule, counts: dict[str, Any]) -> None:
    for name, metric in pl_module.named_modules():
        if isinstance(metric, Metric) and name in counts:
            metric._update_count = counts[name]["updates"]
            for state, value in _moved(counts[name]["state"], pl_module.device).items():
                setattr(metric, state, value)


def _moved(states: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Copies of a metric's states, which are tensors or lists of them."""
    return {
        name: [part.detach().to(device, copy=True) for part in value]
        if isinstance(value, list)
        else value.detach().to(device, copy=True)
        for name, value in states.items()
    }


def _files(trainer: L.Trainer) -> list[MetricsFile]:
    return [logger for logger in trainer.loggers if isinstance(logger, MetricsFile)]
