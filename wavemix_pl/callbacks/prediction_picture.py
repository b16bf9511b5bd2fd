"""A picture of some predictions of a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from wavemix_pl.errors import InputError


class PredictionPicture(Callback):
    """Writes `predictions.png` into the run's directory after a test: test images with predicted and true class.

    Args:
        rows: Rows of the picture.
        columns: Columns of the picture.

    Raises:
        InputError: matplotlib is not installed.
    """

    def __init__(self, rows: int = 4, columns: int = 8) -> None:
        try:
            import matplotlib  # noqa: F401  # fail now, not after the test
        except ImportError:
            raise InputError("PredictionPicture needs matplotlib: pip install 'wavemix_pl[plots]'") from None
        if rows < 1 or columns < 1:
            raise InputError(f"PredictionPicture needs a row and a column at least, got {rows} and {columns}")
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
        path = Path(trainer.default_root_dir) / "predictions.png"
        self._draw(path, images.cpu(), targets.tolist(), predicted.tolist(), trainer.datamodule.preprocessing)  # type: ignore[attr-defined]  # set by Lightning
        trainer.print(f"picture: {path}")

    def _draw(self, path: Path, images: Tensor, targets: list[int], predicted: list[int], data: dict[str, Any]) -> None:
        from matplotlib.figure import Figure  # without pyplot: no window system, nothing global

        shape = (1, -1, 1, 1)
        images = (
            images * images.new_tensor(data["std"]).view(shape) + images.new_tensor(data["mean"]).view(shape)
        ).clamp(0, 1)
        figure = Figure(figsize=(1.5 * self.columns, 1.75 * self.rows), layout="constrained")
        for axes, image, target, guess in zip(
            figure.subplots(self.rows, self.columns, squeeze=False).flat, images, targets, predicted, strict=False
        ):
            names = data["class_names"]
            right = target == guess
            axes.imshow(image.permute(1, 2, 0).squeeze(-1).numpy(), cmap="gray")
            axes.set_title(
                names[guess] if right else f"{names[guess]}\n(true: {names[target]})",
                fontsize=7,
                color="green" if right else "red",
            )
        for axes in figure.axes:
            axes.axis("off")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)
