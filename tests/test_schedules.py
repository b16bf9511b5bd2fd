"""The learning rate over a run."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from wavemix_pl.errors import InputError
from wavemix_pl.modules import ClassificationModule
from wavemix_pl.schedules import WarmupCosine

EPOCHS, HIGHEST, START, END = 12, 0.1, 1e-3, 1e-5
# torch 2.6 warns of how its own SequentialLR steps
OWN_WARNINGS = ["ignore:The epoch parameter"] if torch.__version__.startswith("2.6.") else []


def optimizer(*rates: float) -> torch.optim.Optimizer:
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates or (HIGHEST,)]
    return torch.optim.SGD(groups)


def by_definition(epoch: int, warmup: int, cooldown: int) -> float:
    if epoch < warmup:
        return HIGHEST * (START + (1 - START) * epoch / warmup)
    if epoch >= EPOCHS - cooldown:
        return HIGHEST * END
    share = (epoch - warmup) / (EPOCHS - cooldown - warmup)
    return HIGHEST * (END + (1 - END) * (1 + math.cos(math.pi * share)) / 2)


@pytest.mark.filterwarnings("error", *OWN_WARNINGS)
@pytest.mark.parametrize("warmup", [0, 1, 3])
@pytest.mark.parametrize("cooldown", [0, 1, 4])
@pytest.mark.parametrize("interrupted", [0, 1, 3, 5, 8, 9, 11])
def test_rates_epoch_by_epoch(warmup: int, cooldown: int, interrupted: int) -> None:
    """Against the formula, also beyond the last epoch, and when saved and restored on the way."""
    stepped = optimizer()
    schedule = WarmupCosine(stepped, EPOCHS, warmup, cooldown, START, END)
    for epoch in range(EPOCHS + 3):
        assert stepped.param_groups[0]["lr"] == pytest.approx(by_definition(epoch, warmup, cooldown), rel=1e-9), epoch
        if epoch == interrupted:
            saved = stepped.state_dict(), schedule.state_dict()
            stepped = optimizer()
            schedule = WarmupCosine(stepped, EPOCHS, warmup, cooldown, START, END)
            stepped.load_state_dict(saved[0])
            schedule.load_state_dict(saved[1])
        stepped.step()
        schedule.step()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"epochs": 13}, "of 13 epochs, 3 of warm-up and 10 of cool-down"),
        ({"epochs": 9, "warmup_epochs": -1, "cooldown_epochs": 0}, "-1 of warm-up"),
        ({"epochs": 300, "start": 0.0}, "got 0.0"),
        ({"epochs": 300, "end": 2.0}, "and 2.0"),
    ],
)
def test_refused(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        WarmupCosine(optimizer(), **arguments)


def test_one_rate_for_all() -> None:
    with pytest.raises(InputError, match=r"one learning rate for all parameters, got \[0.1, 0.2\]"):
        WarmupCosine(optimizer(0.1, 0.2), 300)
    assert WarmupCosine(optimizer(0.1, 0.1), 300).get_last_lr() == pytest.approx([1e-4, 1e-4])


def test_module_makes_it() -> None:
    module = ClassificationModule("WaveMix-Lite-4/1", lr_scheduler=lambda optimizer: WarmupCosine(optimizer, 300))
    made = module.configure_optimizers()
    assert isinstance(made["lr_scheduler"]["scheduler"], WarmupCosine)
    assert made["optimizer"].param_groups[0]["lr"] == pytest.approx(1e-6)
