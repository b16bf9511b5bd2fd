"""Masks as pictures: predictions as files, and some of them beside the truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as TF
from torchvision.utils import make_grid, save_image

from wavemix_pl.errors import InputError
from wavemix_pl.pictures import classes_at, denormalize, paint


def refuse_collisions(files: Sequence[Path], folder: Path, what: str) -> None:
    """Of what is written as `NAME.png` for each image, nothing may overwrite another one or an image.

    Raises:
        InputError: Two images have the same name, or one lies where it would be overwritten.
    """
    stem, times = Counter(file.stem for file in files).most_common(1)[0]
    if times > 1:
        raise InputError(f"{times} images are named {stem!r}: predict them one by one, else their {what} would collide")
    for file in files:
        if file.resolve() == (folder / f"{file.stem}.png").resolve():
            raise InputError(f"{file} would be overwritten: choose another folder for the {what} with --output")


@dataclass(frozen=True)
class WrittenMask:
    """What was written for one image.

    Attributes:
        file: The image.
        mask: PNG of the image's size with a label id in each pixel.
        overlay: The image with its mask in color over it; None where the data has no colors.
        classes: Name -> share of the pixels, the largest first.
    """

    file: str
    mask: str
    overlay: str | None
    classes: dict[str, float]


class MaskWriter(Callback):
    """Writes the predicted mask of each image file, at the file's own size, as PNG and as an overlay.

    Args:
        folder: Where `NAME.png` and `NAME_overlay.png` are written, NAME being the image's name without its suffix.

    Attributes:
        written: One entry for each image.

    Raises:
        InputError: Two images of the same name, or an image that would be overwritten.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.written: list[WrittenMask] = []

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        files: list[Path] = trainer.datamodule.files  # type: ignore[attr-defined]  # set by Lightning
        refuse_collisions(files, self.folder, "masks")
        self.folder.mkdir(parents=True, exist_ok=True)

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]  # set by Lightning
        for logits, index in zip(outputs, batch[1].tolist(), strict=True):
            self.written.append(self._write(data.files[index], logits.cpu(), data.preprocessing))

    def _write(self, file: Path, logits: Tensor, data: dict[str, Any]) -> WrittenMask:
        with Image.open(file) as opened:
            image = TF.pil_to_tensor(opened.convert("RGB"))
        size = list(image.shape[-2:])
        mask = classes_at(logits[None], size)[0]
        names = data["class_names"]
        label_ids = torch.tensor(data.get("label_ids") or range(len(names)), dtype=torch.uint8)
        mask_path, overlay_path = self.folder / f"{file.stem}.png", None
        TF.to_pil_image(label_ids[mask][None]).save(mask_path)
        if data.get("colors"):
            blend = (image.float() + paint(mask, data["colors"]).float()) / 2
            overlay_path = str(self.folder / f"{file.stem}_overlay.png")
            TF.to_pil_image(blend.round().to(torch.uint8)).save(overlay_path)
        shares = mask.flatten().bincount(minlength=len(names)).double() / mask.numel()
        order = shares.argsort(descending=True).tolist()
        classes = {names[i]: round(float(shares[i]), 6) for i in order if shares[i] > 0}
        return WrittenMask(str(file), str(mask_path), overlay_path, classes)


class MaskPicture(Callback):
    """Writes `predictions.png` into the run's directory after a test: images, their masks, and the predicted ones.

    Args:
        columns: Number of test images shown.
    """

    def __init__(self, columns: int = 8) -> None:
        self.columns = columns
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
            self._batch = batch[0][: self.columns], batch[1][: self.columns]

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._batch is None:
            return
        images, truth = self._batch
        data = trainer.datamodule.preprocessing  # type: ignore[attr-defined]  # set by Lightning
        with torch.no_grad():
            predicted = pl_module.predict_step((images, truth), 0)
        predicted = classes_at(predicted, list(truth.shape[-2:]))
        shown = F.interpolate(denormalize(images, data), size=truth.shape[-2:]).expand(-1, 3, -1, -1)
        rows = [shown.cpu(), *(paint(masks.cpu(), data["colors"]).float() / 255 for masks in (truth, predicted))]
        path = Path(trainer.default_root_dir) / "predictions.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_image(make_grid(torch.cat(rows), nrow=len(images), padding=2, pad_value=0.5), path)
        trainer.print(f"picture (images, truth, prediction): {path}")
