"""The learning rate over a run, as the timm training script has it (Appendix C.2)."""

from __future__ import annotations

import sys

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR

from wavemix_pl.errors import InputError


class WarmupCosine(SequentialLR):
    """A learning rate that rises linearly, falls along half a cosine, and stays low for the last epochs.

    It is torch's LinearLR, CosineAnnealingLR and ConstantLR in a row, and steps once an epoch. A class, since the
    command line takes no functions here: `--model.lr_scheduler=wavemix_pl.schedules.WarmupCosine`.

    Args:
        optimizer: Its learning rate is the highest, that of the epoch after the warm-up.
        epochs: Of the whole run, warm-up and cool-down included: the trainer's `max_epochs`.
        warmup_epochs: How many of them, at the beginning, rise to it; 0 for none.
        cooldown_epochs: How many of them, at the end, stay at the lowest; 0 for none.
        start: Learning rate of the first epoch, as a share of the highest.
        end: The lowest learning rate, likewise.

    Raises:
        InputError: No epoch is left for the cosine, shares that are none, or parameter groups of different rates.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        epochs: int,
        warmup_epochs: int = 3,
        cooldown_epochs: int = 10,
        start: float = 1e-3,
        end: float = 1e-5,
    ) -> None:
        falling = epochs - warmup_epochs - cooldown_epochs
        if min(warmup_epochs, cooldown_epochs) < 0 or falling < 1:
            raise InputError(
                f"WarmupCosine: of {epochs} epochs, {warmup_epochs} of warm-up and {cooldown_epochs} of cool-down must "
                "leave at least one: raise epochs or lower the others"
            )
        if not (0 < start <= 1 and 0 <= end <= 1):
            raise InputError(f"WarmupCosine: start and end are shares of the learning rate, got {start} and {end}")
        rates = {group["lr"] for group in optimizer.param_groups}
        if len(rates) > 1:
            raise InputError(f"WarmupCosine needs one learning rate for all parameters, got {sorted(rates)}")
        parts: list[LRScheduler] = [LinearLR(optimizer, start, total_iters=warmup_epochs)] if warmup_epochs else []
        parts.append(CosineAnnealingLR(optimizer, falling, eta_min=end * rates.pop()))
        parts.append(ConstantLR(optimizer, end, total_iters=sys.maxsize))  # after the last epoch it would go up again
        self.epochs = epochs
        ends = [warmup_epochs, warmup_epochs + falling]
        super().__init__(optimizer, parts, ends[-len(parts) + 1 :])
