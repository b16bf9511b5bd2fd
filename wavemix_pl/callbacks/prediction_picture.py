"""A picture of some predictions of a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from wavemix_pl.errors import InputError
from wavemix_pl.pictures import denormalize, draw_predictions, new_figure, rendered


class PredictionPicture(Callback):
    """Writes `predictions.png` into the run's directory after a test: test images with predicted and true class.

    Args:
        rows: Rows of the picture.
        columns: Columns of the picture.

    Raises:
        InputError: matplotlib is not installed.
    """

    def __init__(self, rows: int = 4, columns: int = 8) -> None:
        if rows < 1 or columns < 1:
            raise InputError(f"PredictionPicture needs a row and a column at least, got {rows} and {columns}")
        new_figure(1, 1)  # fails now, not after the test
        self.rows, self.columns = rows, columns
        self._batch: tuple[Tensor, Tensor] | None = None

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx == 0 and trainer.is_global_zero:
            count = self.rows * self.columns
            self._batch = batch[0][:count], batch[1][:count]

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._batch is None:
            return
        images, targets = self._batch
        predicted = pl_module.predict_step(self._batch, 0).argmax(dim=1)
        data = trainer.datamodule.preprocessing  # type: ignore[attr-defined]  # set by Lightning
        shown = denormalize(images, data).cpu()
        figure = draw_predictions(shown, targets.tolist(), predicted.tolist(), data["class_names"], self.columns)
        path = Path(trainer.default_root_dir) / "predictions.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rendered(figure, "png", dpi=120))
        trainer.print(f"picture: {path}")
