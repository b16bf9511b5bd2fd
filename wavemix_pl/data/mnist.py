"""Fashion-MNIST: the MNIST family's file format, and where the files are found."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torchvision import datasets

from wavemix_pl.data.base import ImageDataModule, TensorImages
from wavemix_pl.errors import InputError


class FashionImages(ImageDataModule):
    """The facts about Fashion-MNIST's images (Xiao et al. 2017), wherever they lie."""

    class_names = (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    )
    in_channels = 1
    image_size = (28, 28)
    mean = (0.2860,)  # of the 60,000 training images; tests/data/test_mnist.py computes both again
    std = (0.3530,)


class FashionMNIST(FashionImages):
    """Fashion-MNIST: 60,000 + 10,000 grey images of 28x28 garments in 10 classes, held in memory.

    The files are looked for in `root` (as torchvision lays them out, or directly in it, gzipped or not), then in the
    folder of Debian's package `dataset-fashion-mnist`; then, if asked, torchvision downloads them to `root`. Ten of
    the test images also occur among the training images.

    Args:
        root: Folder of data sets.
        download: Whether to download what is not found.
        kwargs: As in `ImageDataModule`.
    """

    debian_folder: ClassVar[Path] = Path("/usr/share/datasets/fashion-mnist")

    def __init__(self, root: str = "data", download: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root, self.download = Path(root).expanduser(), download

    def prepare_data(self) -> None:
        if self._folder() is None and self.download:
            datasets.FashionMNIST(str(self.root), download=True)

    def load(self, split: Literal["train", "test"]) -> TensorImages:
        folder = self._folder()
        if folder is None:
            raise InputError(
                f"Fashion-MNIST is neither in {self._layouts()[0]} nor in {self.debian_folder}: pass "
                "--data.root=FOLDER, --data.download=true, or --data=EmbeddedFashionMNIST for the sample in the package"
            )
        rank_zero_info(f"Fashion-MNIST {split} images: {folder}")
        return load_idx_images(folder, split, self.num_classes)

    def _layouts(self) -> list[Path]:
        return [self.root / "FashionMNIST" / "raw", self.root, self.debian_folder]

    def _folder(self) -> Path | None:
        return next((folder for folder in self._layouts() if all(_find(folder, n) for n in _IDX_NAMES.values())), None)


_IDX_NAMES = {
    ("train", "images"): "train-images-idx3-ubyte",
    ("train", "labels"): "train-labels-idx1-ubyte",
    ("test", "images"): "t10k-images-idx3-ubyte",
    ("test", "labels"): "t10k-labels-idx1-ubyte",
}


def load_idx_images(folder: Path, split: Literal["train", "test"], num_classes: int) -> TensorImages:
    """Reads a split of grey images from a folder in MNIST's layout.

    Raises:
        InputError: A damaged file, counts that differ, or a label out of range; the file is named.
    """
    images_path, labels_path = (_find(folder, _IDX_NAMES[split, part]) for part in ("images", "labels"))
    if images_path is None or labels_path is None:
        raise InputError(f"{folder}: no {split} images and labels in MNIST's format")
    images, labels = read_idx(images_path), read_idx(labels_path).long()
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        shapes = f"{tuple(images.shape)} and {tuple(labels.shape)}"
        raise InputError(f"{images_path} and {labels_path.name}: expected (N, H, W) and (N,), got {shapes}")
    if len(labels) == 0 or int(labels.max()) >= num_classes:
        found = f"label {int(labels.max())}" if len(labels) else "no label"
        raise InputError(f"{labels_path}: expected labels 0 to {num_classes - 1}, got {found}")
    return TensorImages(images.unsqueeze(1), labels)


def read_idx(path: Path) -> Tensor:
    """Reads an IDX file of unsigned bytes, gzipped or not (http://yann.lecun.com/exdb/mnist).

    Raises:
        InputError: The file is not of this format, or is not whole.
    """
    opener: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            data = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error}): get it anew") from None
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise InputError(f"{path}: not an IDX file of unsigned bytes: get it anew")
    start = 4 + 4 * data[3]
    shape = [int.from_bytes(data[at : at + 4], "big") for at in range(4, start, 4)]
    if len(data) != start + math.prod(shape):
        raise InputError(f"{path}: {len(data)} bytes where its header promises {start + math.prod(shape)}: get it anew")
    return torch.frombuffer(bytearray(data[start:]) or bytearray(1), dtype=torch.uint8)[: math.prod(shape)].view(shape)


def _find(folder: Path, name: str) -> Path | None:
    """The file in `folder`, plain or gzipped."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)
