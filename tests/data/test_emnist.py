"""EMNIST: upright, counted from 0, in each of its variants; MNIST."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import torch
from torchvision import datasets

from tests.conftest import write_idx
from wavemix_pl.data import EMNIST, MNIST
from wavemix_pl.data.generated import write_dataset
from wavemix_pl.data.mnist import EMNISTVariant, read_idx
from wavemix_pl.errors import InputError

CLASSES = {"byclass": 62, "bymerge": 47, "balanced": 47, "letters": 26, "digits": 10}


@pytest.mark.parametrize("variant", get_args(EMNISTVariant))
def test_variants(tmp_path: Path, variant: EMNISTVariant) -> None:
    write_dataset("EMNIST", tmp_path, images=2 * CLASSES[variant])
    data = EMNIST(variant=variant, root=str(tmp_path))
    assert data.num_classes == len(data.class_names) == CLASSES[variant]
    ours, theirs = data.load("test"), datasets.EMNIST(str(tmp_path), split=variant, train=False)
    assert torch.equal(ours.images[:, 0].transpose(1, 2), theirs.data)
    names = [theirs.classes[label] for label in theirs.targets]
    assert [data.class_names[label] for label in ours.targets] == names
    assert ours.targets.unique().tolist() == list(range(CLASSES[variant]))


def test_the_archives_own_layout(tmp_path: Path) -> None:
    write_dataset("EMNIST", tmp_path / "made")
    for path in (tmp_path / "made").rglob("emnist-letters-*"):
        write_idx(tmp_path / "gzip" / f"{path.name}.gz", read_idx(path))
    data = EMNIST(variant="letters", root=str(tmp_path))
    assert data.found() == tmp_path / "gzip"
    assert len(data.load("train")) == 10


def test_letters_out_of_range(tmp_path: Path) -> None:
    write_dataset("EMNIST", tmp_path)
    write_idx(tmp_path / "EMNIST" / "raw" / "emnist-letters-train-labels-idx1-ubyte", torch.zeros(10))
    with pytest.raises(InputError, match="labels 1 to 26, got label 0"):
        EMNIST(variant="letters", root=str(tmp_path)).load("train")


def test_other_variants_are_missing(tmp_path: Path) -> None:
    write_dataset("EMNIST", tmp_path)
    for path in tmp_path.rglob("emnist-digits-*"):
        path.unlink()
    with pytest.raises(InputError, match="EMNIST is neither"):
        EMNIST(variant="digits", root=str(tmp_path)).load("train")
    with pytest.raises(InputError, match="variants byclass"):
        EMNIST(variant="capitals", root=str(tmp_path))  # type: ignore[arg-type]


def test_mnist(tmp_path: Path) -> None:
    write_dataset("MNIST", tmp_path, images=20)
    data, theirs = MNIST(root=str(tmp_path)), datasets.MNIST(str(tmp_path))
    ours = data.load("train")
    assert torch.equal(ours.images[:, 0], theirs.data)
    assert torch.equal(ours.targets, theirs.targets)
    assert len(data.load("test")) == 10
