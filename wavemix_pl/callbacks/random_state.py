"""The states of the random number generators, which Lightning's checkpoints lack."""

from __future__ import annotations

import random
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback


class RandomState(Callback):
    """Puts the generators of Python, torch and CUDA into checkpoints, and back when training goes on.

    With it, dropout and augmentation after a resume draw what they would have drawn without the interruption. The
    states are those of the first process: Lightning seeds all processes alike, so that all of them draw the same.
    """

    def __init__(self) -> None:
        self._restored: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        version, state, gauss = random.getstate()
        return {
            "python": [version, list(state), gauss],
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restored = state_dict

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Not earlier: between loading and here Lightning itself draws numbers (sanity check, loaders).
        if self._restored is None:
            return
        version, state, gauss = self._restored["python"]
        random.setstate((version, tuple(state), gauss))
        torch.set_rng_state(self._restored["torch"].cpu())
        if len(self._restored["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all([state.cpu() for state in self._restored["cuda"]])
        self._restored = None
