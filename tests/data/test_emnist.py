"""EMNIST: upright, counted from 0, in each of its variants; MNIST."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import torch
from torchvision import datasets

from tests.conftest import write_idx
from wavemix_pl.data import EMNIST, MNIST
from wavemix_pl.data.mnist import EMNISTVariant
from wavemix_pl.errors import InputError

CLASSES = {"byclass": 62, "bymerge": 47, "balanced": 47, "letters": 26, "digits": 10}


def write_emnist(folder: Path, variant: str, suffix: str = "") -> None:
    first = 1 if variant == "letters" else 0
    for split, count in (("train", CLASSES[variant] * 2), ("test", CLASSES[variant])):
        rng = torch.Generator().manual_seed(count)
        images = torch.randint(0, 256, (count, 28, 28), generator=rng)
        prefix = folder / f"emnist-{variant}-{split}"
        write_idx(Path(f"{prefix}-images-idx3-ubyte{suffix}"), images)
        write_idx(Path(f"{prefix}-labels-idx1-ubyte{suffix}"), torch.arange(count) % CLASSES[variant] + first)


@pytest.mark.parametrize("variant", get_args(EMNISTVariant))
def test_variants(tmp_path: Path, variant: EMNISTVariant) -> None:
    write_emnist(tmp_path / "EMNIST" / "raw", variant)
    data = EMNIST(variant=variant, root=str(tmp_path))
    assert data.num_classes == len(data.class_names) == CLASSES[variant]
    ours, theirs = data.load("test"), datasets.EMNIST(str(tmp_path), split=variant, train=False)
    assert torch.equal(ours.images[:, 0].transpose(1, 2), theirs.data)
    names = [theirs.classes[label] for label in theirs.targets]
    assert [data.class_names[label] for label in ours.targets] == names
    assert ours.targets.unique().tolist() == list(range(CLASSES[variant]))


def test_the_archives_own_layout(tmp_path: Path) -> None:
    write_emnist(tmp_path / "gzip", "letters", ".gz")
    data = EMNIST(variant="letters", root=str(tmp_path))
    assert data.found() == tmp_path / "gzip"
    assert len(data.load("train")) == 52


def test_letters_out_of_range(tmp_path: Path) -> None:
    write_emnist(tmp_path, "letters")
    write_idx(tmp_path / "emnist-letters-train-labels-idx1-ubyte", torch.zeros(52))
    with pytest.raises(InputError, match="labels 1 to 26, got label 0"):
        EMNIST(variant="letters", root=str(tmp_path)).load("train")


def test_other_variants_are_missing(tmp_path: Path) -> None:
    write_emnist(tmp_path, "letters")
    with pytest.raises(InputError, match="EMNIST is neither"):
        EMNIST(variant="digits", root=str(tmp_path)).load("train")
    with pytest.raises(InputError, match="variants byclass"):
        EMNIST(variant="capitals", root=str(tmp_path))  # type: ignore[arg-type]


def test_mnist(tmp_path: Path) -> None:
    for name, count in (("train", 20), ("t10k", 10)):
        pixels = torch.arange(count * 784).view(-1, 28, 28) % 256
        write_idx(tmp_path / "MNIST" / "raw" / f"{name}-images-idx3-ubyte", pixels)
        write_idx(tmp_path / "MNIST" / "raw" / f"{name}-labels-idx1-ubyte", torch.arange(count) % 10)
    data, theirs = MNIST(root=str(tmp_path)), datasets.MNIST(str(tmp_path))
    assert torch.equal(data.load("train").images[:, 0], theirs.data)
    assert len(data.load("test")) == 10
