"""The states of the random number generators, which Lightning's checkpoints lack."""

from __future__ import annotations

import random
from typing import Any, TypeVar

import lightning as L
import numpy as np
import torch
import torch.distributed
from lightning.pytorch.callbacks import Callback

_KEY = "random_state"  # in checkpoints

T = TypeVar("T")


class RandomState(Callback):
    """Puts the generators of Python, NumPy, torch and CUDA into checkpoints, and back when training goes on.

    With it, dropout and augmentation after a resume draw what they would have drawn without the interruption. Each
    process has its own states; with another number of processes, those of the first are everybody's.
    """

    def __init__(self) -> None:
        self._restored: list[dict[str, Any]] = []  # of each process

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[_KEY] = of_all_processes(_states(pl_module.device))

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._restored = checkpoint.get(_KEY, [])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Not earlier: between loading and here Lightning itself draws numbers (sanity check, loaders).
        if self._restored:
            own = len(self._restored) == trainer.world_size
            _restore(self._restored[trainer.global_rank if own else 0], pl_module.device)
        self._restored = []


def _states(device: torch.device) -> dict[str, Any]:
    version, state, gauss = random.getstate()
    numbers: Any = np.random.get_state()
    return {
        "python": [version, list(state), gauss],
        "numpy": [numbers[0], numbers[1].tolist(), *numbers[2:]],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def _restore(states: dict[str, Any], device: torch.device) -> None:
    version, state, gauss = states["python"]
    random.setstate((version, tuple(state), gauss))
    np.random.set_state(tuple(states["numpy"]))
    torch.set_rng_state(states["torch"].cpu())
    if states["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)


def of_all_processes(value: T) -> list[T]:
    """What each process of the run has, in the order of their ranks; all of them must ask."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [value]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values
