"""CIFAR-10 and CIFAR-100."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torchvision import datasets

from wavemix_pl.data.about import About
from wavemix_pl.data.base import Split
from wavemix_pl.data.download import DownloadedImages
from wavemix_pl.data.manifest import Manifest
from wavemix_pl.data.tensor_images import TensorImages
from wavemix_pl.errors import InputError


class CIFAR10(DownloadedImages):
    """CIFAR-10: 50,000 + 10,000 color images of 32x32 in 10 classes (Krizhevsky 2009), held in memory.

    `root` holds `cifar-10-batches-py`, as unpacked; for CIFAR-100 `cifar-100-python`.

    Args:
        kwargs: As in `DownloadedImages`.

    Raises:
        InputError: The files are not there, or a checksum is wrong.
    """

    class_names: Sequence[str] = (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    )
    image_size = (32, 32)
    mean = (0.4914, 0.4822, 0.4465)  # of the training images, as widely used
    std = (0.2470, 0.2435, 0.2616)
    published: ClassVar[type[datasets.CIFAR10]] = datasets.CIFAR10
    about: ClassVar[About] = About(
        50_000, 10_000, 10, licence="none stated", source="https://www.cs.toronto.edu/~kriz/cifar.html", size_gb=0.17
    )

    def download_to(self, folder: Path) -> None:
        self.published(str(folder), download=True)

    def found(self) -> Path | None:
        folder = self.root / self.published.base_folder
        files = [name for name, _ in (*self.published.train_list, *self.published.test_list)]
        return folder if all((folder / name).is_file() for name in files) else None

    def load(self, split: Split) -> TensorImages:
        if self.found() is None:
            raise InputError(
                f"{type(self).__name__} is not in {self.root / self.published.base_folder}: {self.about.how}"
            )
        try:
            stored = self._verifying()(str(self.root), train=split == "train")
        except RuntimeError:  # torchvision verifies checksums here
            raise InputError(
                f"{self.found()}: a file is damaged (wrong checksum): delete the folder and get it anew"
            ) from None
        images = torch.from_numpy(stored.data).permute(0, 3, 1, 2).contiguous()
        return TensorImages(images, torch.tensor(stored.targets))

    def _verifying(self) -> type[datasets.CIFAR10]:
        """The class of torchvision, which verifies checksums before it unpickles a file: pickles can run code.

        The checksums are the published ones; those of generated files come from generating them again, so that the mark
        of generated images opens the door to no other file.
        """
        made = self.generated
        if made is None or made.dataset != type(self).__name__:
            return self.published
        files = generated_files(type(self), made)
        sums = {name: hashlib.md5(content, usedforsecurity=False).hexdigest() for name, content in files.items()}
        lists = (self.published.train_list, self.published.test_list)
        train_list, test_list = ([[name, sums[name]] for name, _ in parts] for parts in lists)
        meta = {**self.published.meta, "md5": sums[self.published.meta["filename"]]}
        told = {"train_list": train_list, "test_list": test_list, "meta": meta}
        return type(self.published.__name__, (self.published,), told)


class CIFAR100(CIFAR10):
    """CIFAR-100: 50,000 + 10,000 color images of 32x32 in 100 classes (Krizhevsky 2009), held in memory.

    As `CIFAR10`.
    """

    class_names = (
        *("apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle"),
        *("bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle"),
        *("chair", "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur"),
        *("dolphin", "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard"),
        *("lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain"),
        *("mouse", "mushroom", "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck"),
        *("pine_tree", "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road"),
        *("rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider"),
        *("squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone", "television", "tiger"),
        *("tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm"),
    )
    mean = (0.5071, 0.4865, 0.4409)
    std = (0.2673, 0.2564, 0.2762)
    published = datasets.CIFAR100
    about = replace(CIFAR10.about, classes=100)


def generated_files(kind: type[CIFAR10], made: Manifest) -> dict[str, bytes]:
    """The files of a CIFAR of random images, by name: for the same manifest always the same."""
    rng, names, published = made.rng(), kind.class_names, kind.published
    meta = published.meta

    def pickled(content: dict[str, Any]) -> bytes:
        return pickle.dumps(content, protocol=4)

    def batch(start: int, count: int) -> bytes:
        pixels = rng.integers(0, 256, (count, 3 * 32 * 32), dtype=np.uint8)
        labels = [index % len(names) for index in range(start, start + count)]
        return pickled({"data": pixels, meta["key"].replace("_names", "s"): labels})

    files = {meta["filename"]: pickled({meta["key"]: list(names)})}
    for total, parts in ((made.counts["train"], published.train_list), (made.counts["test"], published.test_list)):
        count = -(-total // len(parts))
        files |= {name: batch(number * count, count) for number, (name, _) in enumerate(parts)}
    return files
