"""MNIST, Fashion-MNIST and EMNIST: their file format, and where the files are found."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torchvision import datasets

from wavemix_pl.data.about import About
from wavemix_pl.data.base import ImageDataModule, Split
from wavemix_pl.data.download import DownloadedImages
from wavemix_pl.data.tensor_images import TensorImages
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


class IdxFiles(DownloadedImages):
    """Grey 28x28 images in MNIST's file format, held in memory.

    The files are looked for in `root` (as torchvision lays them out, or directly in it, gzipped or not).

    Args:
        kwargs: As in `DownloadedImages`.

    Raises:
        InputError: The files are not there, damaged, or have labels out of range.
    """

    in_channels = 1
    image_size = (28, 28)
    about: ClassVar[About]
    first_label: int = 0  # what the files have for class 0
    debian_folder: ClassVar[Path | None] = None
    published: ClassVar[type[datasets.MNIST]]  # torchvision's class, which knows where to download

    def load(self, split: Split) -> TensorImages:
        folder, name = self.found(), type(self).__name__
        if folder is None:
            raise InputError(f"{name} is neither in {' nor in '.join(map(str, self._layouts()))}: {self.about.how}")
        rank_zero_info(f"{name} {split} images: {folder}")
        return load_idx_images(folder, split, self.num_classes, self.prefix(split), self.first_label)

    def found(self) -> Path | None:
        """The folder in which all files are, or None."""
        prefixes = [self.prefix(split) for split in ("train", "test")]
        return next((folder for folder in self._layouts() if all(_has_pair(folder, p) for p in prefixes)), None)

    def download_to(self, folder: Path) -> None:
        self.published(str(folder), download=True)

    def prefix(self, split: Split) -> str:
        """What the names of the files of a split begin with."""
        return _PREFIX[split]

    def _layouts(self) -> list[Path]:
        own = [self.root / type(self).__name__ / "raw", self.root]
        return [*own, self.debian_folder] if self.debian_folder else own


class MNIST(IdxFiles):
    """MNIST: 60,000 + 10,000 handwritten digits (LeCun et al. 1998).

    As `IdxFiles`.
    """

    class_names = tuple("0123456789")
    mean = (0.1307,)  # as in PyTorch's own example
    std = (0.3081,)
    published = datasets.MNIST
    about = About(60_000, 10_000, 10, licence="CC BY-SA 3.0", source="http://yann.lecun.com/exdb/mnist", size_gb=0.06)


class FashionMNIST(FashionImages, IdxFiles):
    """Fashion-MNIST: 60,000 + 10,000 garments in 10 classes.

    As `IdxFiles`; also found in the folder of Debian's package `dataset-fashion-mnist`. Ten of the test images also
    occur among the training images.
    """

    debian_folder = Path("/usr/share/datasets/fashion-mnist")
    published = datasets.FashionMNIST
    about = About(
        *(60_000, 10_000, 10), licence="MIT", source="https://github.com/zalandoresearch/fashion-mnist", size_gb=0.08,
        how=f"{About.how}, or --data=EmbeddedFashionMNIST for the sample in the package",
    )  # fmt: skip


EMNISTVariant = Literal["byclass", "bymerge", "balanced", "letters", "digits"]


class EMNIST(IdxFiles):
    """EMNIST: handwritten digits and letters (Cohen et al. 2017), in one of five variants.

    The files hold the images transposed, and count the labels of `letters` from 1: here images stand upright and
    labels begin at 0. Also found where the archive's own folder `gzip` was unpacked.

    Args:
        variant: Which division into classes: byclass (62), bymerge and balanced (47), letters (26), digits (10).
        kwargs: As in `IdxFiles`.
    """

    mean = (0.1736,)  # of byclass, as widely used; the other variants are drawn from the same characters
    std = (0.3317,)
    published = datasets.EMNIST
    about = About(
        train=697_932,
        test=116_323,
        classes=62,
        licence="public domain (NIST)",
        source="https://www.nist.gov/itl/products-and-services/emnist-dataset",
        size_gb=0.6,
        note="counts of byclass",
    )

    def __init__(self, variant: EMNISTVariant = "balanced", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if variant not in get_args(EMNISTVariant):
            raise InputError(f"EMNIST has the variants {', '.join(get_args(EMNISTVariant))}, got {variant!r}")
        self.variant, self.first_label = variant, 1 if variant == "letters" else 0
        self.class_names = [name for name in datasets.EMNIST.classes_split_dict[variant] if name != "N/A"]

    def load(self, split: Split) -> TensorImages:
        stored = super().load(split)
        return TensorImages(stored.images.transpose(-1, -2).contiguous(), stored.targets)

    def prefix(self, split: Split) -> str:
        return f"emnist-{self.variant}-{split}"

    def _layouts(self) -> list[Path]:
        return [*super()._layouts(), self.root / "gzip"]

    def download_to(self, folder: Path) -> None:
        datasets.EMNIST(str(folder), split=self.variant, download=True)


_PREFIX: dict[Split, str] = {"train": "train", "test": "t10k"}


def _pair(folder: Path, prefix: str) -> tuple[Path | None, Path | None]:
    """Files of images and labels, each plain or gzipped."""
    images, labels = (_find(folder, f"{prefix}-{name}-ubyte") for name in ("images-idx3", "labels-idx1"))
    return images, labels


def _has_pair(folder: Path, prefix: str) -> bool:
    return all(_pair(folder, prefix))


def load_idx_images(
    folder: Path, split: Split, num_classes: int, prefix: str | None = None, first_label: int = 0
) -> TensorImages:
    """Reads a split of grey images from a folder in MNIST's layout.

    Args:
        folder: Where the files are, gzipped or not.
        split: Which.
        num_classes: K.
        prefix: Of the files' names, where they are not called as MNIST's.
        first_label: What the file has for class 0.

    Raises:
        InputError: A damaged file, counts that differ, or a label out of range; the file is named.
    """
    images_path, labels_path = _pair(folder, prefix or _PREFIX[split])
    if images_path is None or labels_path is None:
        raise InputError(f"{folder}: no {split} images and labels in MNIST's format")
    images, labels = read_idx(images_path), read_idx(labels_path).long() - first_label
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        shapes = f"{tuple(images.shape)} and {tuple(labels.shape)}"
        raise InputError(f"{images_path} and {labels_path.name}: expected (N, H, W) and (N,), got {shapes}")
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if len(labels) == 0 or len(wrong):
        found = f"label {int(wrong[0]) + first_label}" if len(labels) else "no label"
        raise InputError(
            f"{labels_path}: expected labels {first_label} to {num_classes - 1 + first_label}, got {found}"
        )
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
