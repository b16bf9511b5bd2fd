"""What several tests share: tiny data in the real on-disk layout, and the command line in this process."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from torch import Tensor

from wavemix_pl.cli import main
from wavemix_pl.data import generated
from wavemix_pl.data.embedded import EmbeddedFashionMNIST

settings.register_profile("default", deadline=None)  # the first call of a torch operation can take long
settings.load_profile("default")

CITYSCAPES_SIZE = (32, 64)


def pytest_configure(config: pytest.Config) -> None:
    if "gpu" not in str(config.option.markexpr).replace("not gpu", ""):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the same everywhere, in the processes that tests start too
    config.addinivalue_line("filterwarnings", "ignore:GENERATED IMAGES")  # tests that run on them know it


def write_idx(path: Path, values: Tensor) -> None:
    """Writes numbers in MNIST's format, gzipped where the name says so."""
    generated.write_idx(path, values.to(torch.uint8).numpy())
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(path.read_bytes()))


def write_fashion_mnist(folder: Path, train: int, test: int, suffix: str = "") -> None:
    """A small Fashion-MNIST in `folder`: real images, as many of each class."""
    data = EmbeddedFashionMNIST()
    for split, name, count in (("train", "train", train), ("test", "t10k", test)):
        full = data.load(split)  # type: ignore[arg-type]
        chosen = torch.cat([(full.targets == label).nonzero().flatten()[: count // 10] for label in range(10)])
        write_idx(folder / f"{name}-images-idx3-ubyte{suffix}", full.images[chosen, 0])
        write_idx(folder / f"{name}-labels-idx1-ubyte{suffix}", full.targets[chosen])


def write_cityscapes(root: Path) -> None:
    """A small Cityscapes: six training, three validation images; masks hold label ids in blocks, void among them."""
    generated.write_dataset("Cityscapes", root, images=6)


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
