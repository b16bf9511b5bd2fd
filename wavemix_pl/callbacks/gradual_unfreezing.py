"""Fine-tuning from the head down: block after block joins the training."""

from __future__ import annotations

from typing import cast

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from wavemix_pl.errors import InputError
from wavemix_pl.freezing import backbone_parts, freeze, settle_modes
from wavemix_pl.models.wavemix import WaveMix


class GradualUnfreezing(Callback):
    """Trains the head of a WaveMix alone at first, then also its last blocks, one after another, and the stem at last.

    What is not trained yet has no gradients, no dropout, and batch norms that keep their statistics. The optimizer has
    all parameters from the beginning and skips those without gradients. Which parts are trained follows from the epoch,
    so that a resumed run needs nothing but the same arguments. The module's `freeze` may be "backbone" or not.

    Args:
        every_n_epochs: For so many epochs the head is trained alone; after each so many more, more is unfrozen.
        blocks_at_once: How many blocks are unfrozen together. `torch.compile` compiles anew each time, and gives up
            after eight times.

    Raises:
        InputError: A number below 1, a model other than WaveMix, or a strategy that shards the parameters (FSDP,
            DeepSpeed, ModelParallel), which wants to know at the beginning which of them are trained.
    """

    def __init__(self, every_n_epochs: int = 1, blocks_at_once: int = 1) -> None:
        for name, value in (("every_n_epochs", every_n_epochs), ("blocks_at_once", blocks_at_once)):
            if value < 1:
                raise InputError(f"GradualUnfreezing: {name} must be at least 1, got {value}")
        self.every_n_epochs, self.blocks_at_once = every_n_epochs, blocks_at_once
        self._trained = 0  # parts, counted from the last block; of this process, no part of a checkpoint

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        if not isinstance(pl_module.model, WaveMix):
            raise InputError(f"GradualUnfreezing is for WaveMix only, this model is a {type(pl_module.model).__name__}")
        if isinstance(trainer.strategy, (FSDPStrategy, DeepSpeedStrategy, ModelParallelStrategy)):
            name = type(trainer.strategy).__name__
            raise InputError(f"GradualUnfreezing does not go with the sharded parameters of {name}: use strategy ddp")
        epochs, last = trainer.max_epochs, self._steps(pl_module.model) * self.every_n_epochs
        if epochs is not None and 0 < epochs <= last and not getattr(trainer, "fast_dev_run", False):
            rank_zero_warn(f"GradualUnfreezing: the stem's turn is epoch {last}, the last one is epoch {epochs - 1}")
        freeze(pl_module.model)
        self._trained = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._unfreeze(trainer, pl_module)  # a run that goes on in the middle of an epoch does not start it again

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._unfreeze(trainer, pl_module)

    def _unfreeze(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        model = cast(WaveMix, pl_module.model)
        parts = self.parts_trained(model, trainer.current_epoch)
        if parts != self._trained:
            freeze(model, parts)
            if isinstance(trainer.strategy, DDPStrategy):  # it exchanges the gradients it knew of when it was made
                trainer.strategy.model = pl_module
                trainer.strategy.configure_ddp()
            whole = parts == len(backbone_parts(model))
            what = "the whole model is" if whole else f"head and last {parts} of {len(model.blocks)} blocks are"
            rank_zero_info(f"GradualUnfreezing: {what} trained from epoch {trainer.current_epoch} on")
            self._trained = parts
        settle_modes(model)

    def parts_trained(self, model: WaveMix, epoch: int) -> int:
        """How many parts, counted from the last block, are trained in an epoch: the blocks, and one more, the stem."""
        steps = epoch // self.every_n_epochs
        stem = steps >= self._steps(model)
        return min(steps * self.blocks_at_once, len(model.blocks)) + stem

    def _steps(self, model: WaveMix) -> int:
        """After how many times the stem is unfrozen."""
        return -(-len(model.blocks) // self.blocks_at_once) + 1
