"""Tiny data sets of random images in the real layout of each data set of the paper, to try runs without the data.

They lie beside a `generated-images.json` that says what they are (`manifest.py`), and runs on them say so as well.
"""

from __future__ import annotations

import difflib
import struct
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wavemix_pl.data.cifar import CIFAR10, CIFAR100, generated_files
from wavemix_pl.data.galaxy10 import Galaxy10
from wavemix_pl.data.manifest import Manifest
from wavemix_pl.data.mnist import EMNIST, MNIST, EMNISTVariant, FashionMNIST, IdxFiles
from wavemix_pl.data.published import ImageNet, INaturalist, Places365, PublishedFolders, TinyImageNet
from wavemix_pl.data.svhn import SVHN
from wavemix_pl.errors import InputError

Bytes = NDArray[np.uint8]


def write_dataset(name: str, root: Path, images: int = 10, seed: int = 0) -> None:
    """Writes random images as a data set that the data module of that name finds in `root`.

    It has all classes of the real one, and no more images than it takes to train, validate and test: class folders
    beyond the first `images` stay empty. EMNIST comes in all its variants.

    Args:
        name: Of a data module.
        root: A folder that is empty or not there.
        images: Of the training split, at least 6; there are half as many test images. Files that share them equally
            (CIFAR-10) or classes of which a share is drawn (Galaxy10) can make it more.
        seed: The same one gives the same images.

    Raises:
        InputError: An unknown name, too few images, a folder that holds anything, or a package that writes the format
            is not installed.
    """
    if name not in _WRITERS:
        near = difflib.get_close_matches(name, _WRITERS, n=1, cutoff=0.4)
        meant = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"no generated images for {name!r}: {meant}There are {', '.join(_WRITERS)}")
    made = Manifest(name, images, seed)
    if name in _IN_ONE_FILE:
        _IN_ONE_FILE[name]()  # says what must be installed
    if root.exists() and not (root.is_dir() and not any(root.iterdir())):
        raise InputError(f"{root} is not an empty folder: generated images must not lie among others; name a new one")
    root.mkdir(parents=True, exist_ok=True)
    made.write(root)  # first, so that even a part of them is known for what it is
    _WRITERS[name](root, made)


def write_idx(path: Path, values: Bytes) -> None:
    """Writes an IDX file of unsigned bytes (http://yann.lecun.com/exdb/mnist)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(f">I{values.ndim}I", 0x0800 + values.ndim, *values.shape) + values.tobytes())


def _grey(root: Path, made: Manifest) -> None:
    rng = made.rng()
    kinds: dict[str, type[IdxFiles]] = {"MNIST": MNIST, "FashionMNIST": FashionMNIST}
    emnist = [EMNIST(variant=variant) for variant in get_args(EMNISTVariant)]
    for module in [kinds[made.dataset]()] if made.dataset in kinds else emnist:
        for split, count in made.counts.items():
            prefix = root / made.dataset / "raw" / module.prefix(split)
            labels = (module.first_label + _labels(count, module.num_classes)).astype(np.uint8)
            write_idx(prefix.with_name(f"{prefix.name}-images-idx3-ubyte"), _pixels(rng, count, 28, 28))
            write_idx(prefix.with_name(f"{prefix.name}-labels-idx1-ubyte"), labels)


def _cifar(root: Path, made: Manifest) -> None:
    kind = CIFAR100 if made.dataset == "CIFAR100" else CIFAR10
    folder = root / kind.published.base_folder
    folder.mkdir()
    for name, content in generated_files(kind, made).items():
        (folder / name).write_bytes(content)


def _svhn(root: Path, made: Manifest) -> None:
    from scipy.io import savemat

    rng = made.rng()
    for split, count in made.counts.items():
        labels = (1 + _labels(count, 10)).astype(np.uint8)  # 10 is the digit 0
        content = {"X": _pixels(rng, 32, 32, 3, count), "y": labels[:, None]}
        savemat(root / f"{split}_32x32.mat", content)


def _galaxy10(root: Path, made: Manifest) -> None:
    import h5py

    count = max(sum(made.counts.values()), 60)  # of 6 images of a class, a tenth for test is one
    with h5py.File(root / "Galaxy10_DECals.h5", "w") as file:
        file["images"] = _pixels(made.rng(), count, 64, 64, 3)
        file["ans"] = np.sort(_labels(count, 10)).astype(np.uint8)


def _folders(root: Path, made: Manifest) -> None:
    kinds: tuple[type[PublishedFolders], ...] = (ImageNet, INaturalist, Places365)
    kind, rng = next(kind for kind in kinds if kind.__name__ == made.dataset), made.rng()
    classes = [f"class{number:05d}" for number in range(kind.about.classes)]
    for split, count in made.counts.items():
        folder = root / kind.parents[-1] / kind.folders[split][0]
        for name in classes:
            (folder / name).mkdir(parents=True)
        for number, label in enumerate(_labels(count, len(classes))):
            _save(folder / classes[label] / f"{number}.jpg", _pixels(rng, 48, 64, 3))


def _tiny_imagenet(root: Path, made: Manifest) -> None:
    rng = made.rng()
    folder = root / TinyImageNet.parents[-1]
    wnids = [f"n{number:08d}" for number in rng.permutation(TinyImageNet.about.classes)]
    for wnid in wnids:
        (folder / "train" / wnid / "images").mkdir(parents=True)
    for number, label in enumerate(_labels(made.counts["train"], len(wnids))):
        _save(folder / "train" / wnids[label] / "images" / f"{wnids[label]}_{number}.JPEG", _pixels(rng, 64, 64, 3))
    lines = []
    for number, label in enumerate(_labels(made.counts["test"], len(wnids))):
        _save(folder / "val" / "images" / f"val_{number}.JPEG", _pixels(rng, 64, 64, 3))
        lines.append(f"val_{number}.JPEG\t{wnids[label]}\t0\t0\t63\t63\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    (folder / "wnids.txt").write_text("\n".join(wnids) + "\n")


def _cityscapes(root: Path, made: Manifest) -> None:
    """Masks hold label ids in blocks, void among them; the color of a pixel of an image tells its id."""
    rng = made.rng()
    for split, cities, count in (
        ("train", ("aachen", "ulm"), made.counts["train"]),
        ("val", ("lindau",), made.counts["test"]),
    ):
        for number in range(count):
            city = cities[number % len(cities)]
            stem = f"{city}_{number:06d}_000019"
            ids = rng.choice([0, 3, 7, 8, 11, 17, 21, 23, 24, 26, 33], size=(4, 8)).astype(np.uint8)
            mask = ids.repeat(8, axis=0).repeat(8, axis=1)
            _save(root / "gtFine" / split / city / f"{stem}_gtFine_labelIds.png", mask)
            image = np.stack([mask * 7, 255 - mask * 5, mask * 3], axis=-1)
            _save(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", image)


def _pixels(rng: np.random.Generator, *shape: int) -> Bytes:
    return rng.integers(0, 256, shape, dtype=np.uint8)


def _labels(count: int, classes: int) -> NDArray[np.int64]:
    """Each class in turn."""
    return np.arange(count) % classes


def _save(path: Path, pixels: Bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


_IN_ONE_FILE = {"SVHN": SVHN, "Galaxy10": Galaxy10}
_WRITERS: dict[str, Callable[[Path, Manifest], None]] = {
    **dict.fromkeys(("MNIST", "FashionMNIST", "EMNIST"), _grey),
    "SVHN": _svhn,
    **dict.fromkeys(("CIFAR10", "CIFAR100"), _cifar),
    "TinyImageNet": _tiny_imagenet,
    **dict.fromkeys(("ImageNet", "Places365", "INaturalist"), _folders),
    "Galaxy10": _galaxy10,
    "Cityscapes": _cityscapes,
}
