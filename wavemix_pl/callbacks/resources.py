"""What a training run costs: size, operations, time and memory (the resource columns of Tables 6, 10, 11, 13)."""

from __future__ import annotations

import json
import statistics
import time
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from wavemix_pl.machine import describe
from wavemix_pl.measurement import flops, peak_memory

FILE = "resources.json"


class Resources(Callback):
    """Measures a run: logs images a second and peak memory after each epoch, and writes `resources.json` at its end.

    The file says `params`, `gflops_per_image` (of the forward pass, convolutions and matrix products, by torch's
    formulas), `train_images_per_s` and `epoch_s` (both without validation, medians over epochs), `wall_s` (with it; all
    parts of an interrupted run together, each up to its last checkpoint), `peak_memory_gb` (of tensors on a GPU, of the
    whole process on a CPU, in this part of the run), `epochs`, `device`, `devices`, `precision`, `batch_size` over all
    devices, and whether the run is `complete`.
    """

    def __init__(self) -> None:
        self._seconds: list[float] = []  # of each epoch's training part
        self._rates: list[float] = []  # images a second in it
        self._wall_before = self._epoch_before = 0.0
        self._started = self._epoch_started = 0.0
        self._images = 0
        self._size: dict[str, float] = {}
        self._complete = False

    def state_dict(self) -> dict[str, Any]:
        so_far = {"epoch_s": time.perf_counter() - self._epoch_started, "images": self._images}
        return {"seconds": self._seconds, "rates": self._rates, "wall_s": self._wall(), **so_far}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._seconds, self._rates = list(state_dict["seconds"]), list(state_dict["rates"])
        self._wall_before = state_dict["wall_s"]
        self._epoch_before, self._images = state_dict.get("epoch_s", 0.0), state_dict.get("images", 0)

    def _wall(self) -> float:
        return self._wall_before + time.perf_counter() - self._started

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._started, self._size, self._complete = time.perf_counter(), {}, False
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(trainer.strategy.root_device)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._epoch_started = time.perf_counter() - self._epoch_before  # where a run goes on in the middle of an epoch

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._epoch_started, self._images = time.perf_counter(), 0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if not self._size:
            started = time.perf_counter()
            self._size = _size(pl_module, batch[0])
            self._epoch_started += time.perf_counter() - started  # no part of the training

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._images += len(batch[0])
        if trainer.is_last_batch:  # validation comes next
            device = trainer.strategy.root_device
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds = time.perf_counter() - self._epoch_started
            rate = self._images * trainer.world_size / seconds
            self._seconds.append(seconds)
            self._rates.append(rate)
            peak = peak_memory(device)
            logged = {"train_images_per_s": rate, "peak_memory_gb": (peak or 0) / 1e9}
            pl_module.log_dict(logged, on_step=False, on_epoch=True, batch_size=1)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._complete = not trainer.interrupted

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if (
            stage != "fit"
            or not self._complete
            or not trainer.is_global_zero
            or getattr(trainer, "fast_dev_run", False)
        ):
            return
        device, loader = trainer.strategy.root_device, trainer.train_dataloader  # the module is on the CPU again
        peak = peak_memory(device)
        report = {
            **self._size,
            "epochs": trainer.current_epoch,
            "complete": True,
            "wall_s": self._wall(),
            "epoch_s": statistics.median(self._seconds) if self._seconds else None,
            "train_images_per_s": statistics.median(self._rates) if self._rates else None,
            "peak_memory_gb": None if peak is None else peak / 1e9,
            **describe(device),
            "devices": trainer.world_size,
            "precision": str(trainer.precision),
            "batch_size": (getattr(loader, "batch_size", None) or 0) * trainer.world_size,
        }
        file = Path(trainer.default_root_dir, FILE)
        unfinished = file.with_suffix(".tmp")
        unfinished.write_text(json.dumps(report, indent=2) + "\n")
        unfinished.replace(file)


def _size(pl_module: L.LightningModule, images: torch.Tensor) -> dict[str, float]:
    """Parameters, and operations for one image, which are counted on shapes alone."""
    model = deepcopy(cast(nn.Module, pl_module.model)).to("meta", torch.float32).eval()
    image = torch.empty(1, *images.shape[1:], device="meta")
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        operations = flops(lambda: model(image))
    params = sum(parameter.numel() for parameter in model.parameters())  # frozen ones as well
    return {"params": params, "gflops_per_image": operations / 1e9}
