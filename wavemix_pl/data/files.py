"""Loose image files, for predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.v2 import functional as TF

from wavemix_pl.data.image import open_pixels
from wavemix_pl.errors import InputError


class ImageFiles(L.LightningDataModule):
    """Image files without labels, brought to the form that a model was trained on.

    Args:
        paths: Image files, and folders that are searched for them with all their subfolders.
        preprocessing: Of the training data, as its checkpoint holds it: `in_channels`, `image_size`, `mean`, `std`,
            `class_names`. The command line takes it from the checkpoint.
        batch_size: Images at a time.
        num_workers: Processes that load.
    """

    def __init__(
        self,
        paths: list[str] | None = None,
        preprocessing: dict[str, Any] | None = None,
        batch_size: int = 64,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        if preprocessing is None:
            raise InputError("predictions need a trained model: pass --ckpt_path=RUN/checkpoints/best.ckpt")
        if batch_size < 1 or num_workers < 0:
            raise InputError(f"batch_size must be at least 1, num_workers at least 0, got {batch_size}, {num_workers}")
        self.files = find_images(paths or [])
        self.preprocessing, self.batch_size, self.num_workers = preprocessing, batch_size, num_workers

    @property
    def class_names(self) -> list[str]:
        names: list[str] = self.preprocessing["class_names"]
        return names

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def void_index(self) -> int:
        return int(self.preprocessing.get("void_index", 255))

    @property
    def in_channels(self) -> int:
        return int(self.preprocessing["in_channels"])

    def predict_dataloader(self) -> DataLoader[Any]:
        dataset = _Files(self.files, self.in_channels, self.preprocessing["image_size"])
        return DataLoader(dataset, batch_size=self.batch_size, num_workers=self.num_workers)

    def on_after_batch_transfer(self, batch: tuple[Tensor, Tensor], dataloader_idx: int) -> tuple[Tensor, Tensor]:
        images, indices = batch
        images = TF.to_dtype(images, torch.float32, scale=True)
        return TF.normalize(images, self.preprocessing["mean"], self.preprocessing["std"]), indices


class _Files(Dataset[Any]):
    def __init__(self, files: list[Path], channels: int, size: list[int]) -> None:
        self.files, self.size = files, size
        self.mode: Literal["L", "RGB"] = "L" if channels == 1 else "RGB"

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        pixels = open_pixels(self.files[index], self.mode, upright=True)
        return TF.resize(pixels, self.size, antialias=True), index


def find_images(paths: list[str]) -> list[Path]:
    """Image files, and those below folders in the order of their names.

    Raises:
        InputError: A path that is not there, or nothing found.
    """
    found: list[Path] = []
    for path in (Path(path).expanduser() for path in paths):
        if path.is_dir():
            found += sorted(file for file in path.rglob("*") if file.suffix.lower() in IMG_EXTENSIONS)
        elif path.is_file():
            found.append(path)
        else:
            raise InputError(f"{path}: no such file or folder")
    if not found:
        where = f"in {', '.join(paths)}" if paths else "named"
        raise InputError(f"no image files {where}: pass files, or folders with any of {', '.join(IMG_EXTENSIONS)}")
    return found
