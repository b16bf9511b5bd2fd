"""The change from one optimizer to another in the middle of a run (Section 4.2)."""

from __future__ import annotations

from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from wavemix_pl.errors import InputError


class OptimizerSwitch(Callback):
    """Trains with the module's own optimizer first, and from a certain epoch on with another: AdamW, then SGD.

    Paper: SGD for the final 50 of at most 300 epochs. Published code: AdamW until some epochs bring no improvement,
    then SGD from the best weights. Here: `final_epochs` is the paper's rule, `patience` (with `restore_best`) the
    published scripts'; with both, whichever comes first. The switch is made once, at the start of an epoch; the
    module's learning rate scheduler ends with it. A run that is killed and resumed does what the whole run would have
    done, whether it was killed before or after the switch.

    Args:
        optimizer: Makes the second optimizer from the parameters. The default is the paper's.
        final_epochs: Number of last epochs that the second optimizer gets, or None. Counted back from the trainer's
            `max_epochs` when the run begins; a resume with another `max_epochs` keeps the epoch that was set then.
        patience: Switch after so many epochs in a row without improvement of `monitor`, or None.
        stop_patience: End the run after so many epochs without improvement since the switch, or None. Use it instead
            of EarlyStopping, which would end the run where the switch is due.
        restore_best: Whether the second optimizer starts from the weights of the best epoch so far.
        monitor: The metric that `patience` and `restore_best` watch, or None for the module's own (`module.monitor`).
        mode: Whether "max" or "min" of it is best, or None for the module's own (`module.monitor_mode`).

    Raises:
        InputError: Neither rule is given, the first optimizer would get no epoch, or a strategy that shards its
            optimizers (FSDP, DeepSpeed, ModelParallel), in which they cannot be replaced.
    """

    def __init__(
        self,
        optimizer: OptimizerCallable = lambda params: torch.optim.SGD(params, lr=1e-3, momentum=0.9),
        final_epochs: int | None = 50,
        patience: int | None = None,
        stop_patience: int | None = None,
        restore_best: bool = False,
        monitor: str | None = None,
        mode: Literal["max", "min"] | None = None,
    ) -> None:
        if final_epochs is None and patience is None:
            raise InputError("OptimizerSwitch needs final_epochs, patience, or both")
        for name, value in (("final_epochs", final_epochs), ("patience", patience), ("stop_patience", stop_patience)):
            if value is not None and value < 1:
                raise InputError(f"OptimizerSwitch: {name} must be at least 1, got {value}")
        optimizer([nn.Parameter(torch.zeros(1))])  # refuses bad arguments now, not after hours of training
        self.optimizer, self.final_epochs, self.patience = optimizer, final_epochs, patience
        self.stop_patience, self.restore_best, self.monitor, self.mode = stop_patience, restore_best, monitor, mode
        self.switched = False
        self.switch_epoch: int | None = None
        self._best_score: float | None = None
        self._best_weights: dict[str, Tensor] | None = None
        self._best_epoch: int | None = None  # the epoch before the first that was judged, until one is better
        self._judged_epoch: int | None = None

    def state_dict(self) -> dict[str, Any]:
        return {
            "switched": self.switched,
            "switch_epoch": self.switch_epoch,
            "best_score": self._best_score,
            "best_weights": self._best_weights,
            "best_epoch": self._best_epoch,
            "judged_epoch": self._judged_epoch,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.switched = state_dict["switched"]
        self.switch_epoch = state_dict["switch_epoch"]
        self._best_score = state_dict["best_score"]
        self._best_weights = state_dict["best_weights"]
        self._best_epoch = state_dict["best_epoch"]
        self._judged_epoch = state_dict["judged_epoch"]

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        if isinstance(trainer.strategy, (FSDPStrategy, DeepSpeedStrategy, ModelParallelStrategy)):
            name = type(trainer.strategy).__name__
            raise InputError(
                f"OptimizerSwitch cannot replace the sharded optimizers of {name}: use strategy ddp, or no switch"
            )
        self.monitor = self.monitor or getattr(pl_module, "monitor", None)
        self.mode = self.mode or getattr(pl_module, "monitor_mode", None)
        if (self._watches or self.stop_patience) and None in (self.monitor, self.mode):
            raise InputError("OptimizerSwitch: give monitor and mode, this module has none of its own")

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # The states of the callbacks are restored by now, those of the optimizers next: after the switch they are the
        # second optimizer's, and must find it in place.
        if len(trainer.optimizers) != 1:
            raise InputError(f"OptimizerSwitch replaces a single optimizer, the module has {len(trainer.optimizers)}")
        if self.switched:
            self._install(trainer, pl_module)
        elif self.switch_epoch is None and self.final_epochs and not getattr(trainer, "fast_dev_run", False):
            epochs = trainer.max_epochs
            if epochs is None or epochs < 0:
                raise InputError("OptimizerSwitch: final_epochs counts back from max_epochs: set it, or patience")
            if epochs <= self.final_epochs:
                raise InputError(
                    f"OptimizerSwitch: final_epochs {self.final_epochs} leaves none of max_epochs {epochs} to the "
                    "first optimizer: lower final_epochs or raise trainer.max_epochs"
                )
            self.switch_epoch = epochs - self.final_epochs

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._best_epoch is None:
            self._best_epoch = trainer.current_epoch - 1
        if self.switched or not self._due(trainer):
            return
        if self.restore_best:
            self._load_best(trainer, pl_module)
        self._install(trainer, pl_module)
        self.switched, self.switch_epoch = True, trainer.current_epoch
        self._best_weights, self._best_epoch = None, trainer.current_epoch - 1  # stop_patience counts anew
        self._judged_epoch = None
        origin = f" from the weights with {self.monitor} {self._best_score:.4g}" if self.restore_best else ""
        rank_zero_info(
            f"OptimizerSwitch: {type(trainer.optimizers[0]).__name__} from epoch {trainer.current_epoch} on{origin}"
        )

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not (self.stop_patience if self.switched else self._watches):
            return
        if (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1):
            return  # an epoch without validation, whose scores are those of an earlier one
        self._judged_epoch = trainer.current_epoch
        score = trainer.callback_metrics.get(self.monitor or "")
        if score is None:
            known = ", ".join(sorted(trainer.callback_metrics))
            raise InputError(f"OptimizerSwitch: no metric {self.monitor!r} was logged; there are {known}")
        if self._improves(float(score)):
            self._best_score, self._best_epoch = float(score), trainer.current_epoch
            if self.restore_best and not self.switched:
                weights = pl_module.state_dict()
                self._best_weights = {name: value.detach().cpu().clone() for name, value in weights.items()}
        elif self.switched and self.stop_patience and self._epochs_without_improvement() >= self.stop_patience:
            trainer.should_stop = True

    @property
    def _watches(self) -> bool:
        return self.patience is not None or self.restore_best

    def _epochs_without_improvement(self) -> int:
        return 0 if self._judged_epoch is None or self._best_epoch is None else self._judged_epoch - self._best_epoch

    def _improves(self, score: float) -> bool:
        if self._best_score is None:
            return score == score  # NaN is no improvement
        return score > self._best_score if self.mode == "max" else score < self._best_score

    def _due(self, trainer: L.Trainer) -> bool:
        due = self.switch_epoch is not None and trainer.current_epoch >= self.switch_epoch
        due = due or (self.patience is not None and self._epochs_without_improvement() >= self.patience)
        return bool(trainer.strategy.reduce_boolean_decision(due, all=False))  # all ranks or none

    def _install(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Only this setter also replaces Lightning's wrappers, through which the loop steps.
        trainer.strategy.optimizers = [self.optimizer(pl_module.parameters())]
        trainer.strategy.lr_scheduler_configs = []  # else the old scheduler goes on driving the old optimizer

    def _load_best(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        weights = trainer.strategy.broadcast(self._best_weights, src=0)
        if weights is None:
            raise InputError(
                f"OptimizerSwitch: {self.monitor!r} was never a number, there are no best weights to restore"
            )
        pl_module.load_state_dict(weights)
