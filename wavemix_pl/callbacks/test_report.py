"""The last page of a test: what came out, and what to do next; and the same in a file."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.panel import Panel
from rich.table import Table


class TestReport(Callback):
    """Prints the test's metrics, the model's size, the speed of the test loop, the checkpoint and the next command.

    `test.json` in the run's directory gets the metrics, the number of images, whether they were generated, and the
    checkpoint.
    """

    __test__ = False  # no test class, whatever its name says to pytest

    def __init__(self) -> None:
        self._images, self._started = 0, 0.0

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._images, self._started = 0, time.perf_counter()

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._images += len(batch[0])

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        seconds = time.perf_counter() - self._started
        if not trainer.is_global_zero:
            return
        metrics = {k: float(value) for k, value in trainer.callback_metrics.items() if k.startswith("test_")}
        table = Table.grid(padding=(0, 2))
        for name, value in metrics.items():
            table.add_row(name, f"{value:.4f}")
        table.add_row("parameters", f"{sum(p.numel() for p in pl_module.parameters()):,}")
        images = self._images * trainer.world_size
        table.add_row("images", f"{images:,} on {trainer.world_size} x {pl_module.device.type}")
        table.add_row("images/s", f"{images / seconds:,.0f} (loading and metrics included)")
        report = {
            "metrics": metrics,
            "images": images,
            "generated": getattr(getattr(trainer, "datamodule", None), "generated", None) is not None,
            "checkpoint": trainer.ckpt_path and str(trainer.ckpt_path),
        }
        if Path(trainer.default_root_dir).is_dir():
            Path(trainer.default_root_dir, "test.json").write_text(json.dumps(report, indent=2) + "\n")
        console = Console()
        console.print(Panel(table, title="Test", expand=False))
        if trainer.ckpt_path:
            predict = f"wavemix-pl predict --ckpt_path={shlex.quote(str(trainer.ckpt_path))} IMAGE_OR_FOLDER"
            console.print(f"checkpoint: {trainer.ckpt_path}\ntry next:   {predict}", soft_wrap=True, markup=False)
