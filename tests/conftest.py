"""What several tests share: tiny data in the real on-disk layout, and the command line in this process."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image
from torch import Tensor

from wavemix_pl.cli import main
from wavemix_pl.data.embedded import EmbeddedFashionMNIST

settings.register_profile("default", deadline=None)  # the first call of a torch operation can take long
settings.load_profile("default")

CITYSCAPES_SIZE = (32, 64)


def write_idx(path: Path, values: Tensor) -> None:
    """Writes unsigned bytes in MNIST's format, gzipped where the name says so."""
    data = (
        struct.pack(f">I{values.ndim}I", 0x0800 + values.ndim, *values.shape) + values.to(torch.uint8).numpy().tobytes()
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def write_fashion_mnist(folder: Path, train: int, test: int, suffix: str = "") -> None:
    """A small Fashion-MNIST in `folder`: real images, as many of each class."""
    data = EmbeddedFashionMNIST()
    for split, name, count in (("train", "train", train), ("test", "t10k", test)):
        full = data.load(split)  # type: ignore[arg-type]
        chosen = torch.cat([(full.targets == label).nonzero().flatten()[: count // 10] for label in range(10)])
        write_idx(folder / f"{name}-images-idx3-ubyte{suffix}", full.images[chosen, 0])
        write_idx(folder / f"{name}-labels-idx1-ubyte{suffix}", full.targets[chosen])


def write_cityscapes(root: Path, seed: int = 0) -> None:
    """A small Cityscapes: six training, three validation images; masks hold label ids in blocks, void among them."""
    rng = np.random.default_rng(seed)
    for split, cities in (("train", {"aachen": 4, "ulm": 2}), ("val", {"lindau": 3})):
        for city, count in cities.items():
            for number in range(count):
                stem = f"{city}_{number:06d}_000019"
                ids = rng.choice([0, 3, 7, 8, 11, 17, 21, 23, 24, 26, 33], size=(4, 8)).astype(np.uint8)
                mask = np.kron(ids, np.ones((CITYSCAPES_SIZE[0] // 4, CITYSCAPES_SIZE[1] // 8), dtype=np.uint8))
                image = np.stack([mask * 7, 255 - mask * 5, mask * 3], axis=-1).astype(np.uint8)
                for kind, name, pixels in (
                    ("leftImg8bit", f"{stem}_leftImg8bit.png", image),
                    ("gtFine", f"{stem}_gtFine_labelIds.png", mask),
                    ("gtFine", f"{stem}_gtFine_instanceIds.png", mask),
                ):
                    path = root / kind / split / city / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(pixels).save(path)
                (root / "gtFine" / split / city / f"{stem}_gtFine_polygons.json").write_text("{}")


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root folder with 80 + 20 images of Fashion-MNIST, as torchvision lays them out."""
    root = tmp_path_factory.mktemp("data")
    write_fashion_mnist(root / "FashionMNIST" / "raw", train=80, test=20)
    return root


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command line, in this process and in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    return lambda *arguments: main([str(argument) for argument in arguments])
