"""The last page of a test: what came out, and what to do next."""

from __future__ import annotations

import shlex
import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.panel import Panel
from rich.table import Table


class TestReport(Callback):
    """Prints the test's metrics, the model's size, the speed of the test loop, the checkpoint and the next command."""

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
        table = Table.grid(padding=(0, 2))
        for name, value in trainer.callback_metrics.items():
            if name.startswith("test_"):
                table.add_row(name, f"{float(value):.4f}")
        table.add_row("parameters", f"{sum(p.numel() for p in pl_module.parameters()):,}")
        images = self._images * trainer.world_size
        table.add_row("images", f"{images:,} on {trainer.world_size} x {pl_module.device.type}")
        table.add_row("images/s", f"{images / seconds:,.0f} (loading and metrics included)")
        console = Console()
        console.print(Panel(table, title="Test", expand=False))
        if trainer.ckpt_path:
            predict = f"wavemix-pl predict --ckpt_path={shlex.quote(str(trainer.ckpt_path))} IMAGE_OR_FOLDER"
            console.print(f"checkpoint: {trainer.ckpt_path}\ntry next:   {predict}", soft_wrap=True, markup=False)
