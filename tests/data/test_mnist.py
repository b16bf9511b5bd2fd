"""Fashion-MNIST: where it is found, what a broken file says, and the embedded sample."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision import datasets

from tests.conftest import write_fashion_mnist, write_idx
from wavemix_pl.data import EmbeddedFashionMNIST, FashionMNIST
from wavemix_pl.data.mnist import read_idx
from wavemix_pl.errors import InputError

DEBIAN = FashionMNIST.debian_folder
needs_full_set = pytest.mark.skipif(
    not DEBIAN.is_dir(), reason="the full set is not installed (Debian: apt-get install dataset-fashion-mnist)"
)


@pytest.fixture
def no_debian(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(FashionMNIST, "debian_folder", tmp_path / "debian")


@pytest.mark.parametrize("layout", ["FashionMNIST/raw", "."])
@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.usefixtures("no_debian")
def test_layouts(tmp_path: Path, layout: str, suffix: str) -> None:
    write_fashion_mnist(tmp_path / layout, train=20, test=10, suffix=suffix)
    data = FashionMNIST(root=str(tmp_path))
    assert [len(data.load("train")), len(data.load("test"))] == [20, 10]


def test_equals_torchvision(data_root: Path) -> None:
    theirs = datasets.FashionMNIST(str(data_root), train=True)
    ours = FashionMNIST(root=str(data_root))
    images = ours.load("train")
    assert torch.equal(images.images[:, 0], theirs.data)
    assert torch.equal(images.targets, theirs.targets)
    assert list(ours.class_names) == theirs.classes


@pytest.mark.usefixtures("no_debian")
def test_order_of_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    downloaded = []

    def download(root: str, download: bool) -> None:
        downloaded.append(root)
        write_fashion_mnist(Path(root) / "FashionMNIST" / "raw", train=40, test=10)

    monkeypatch.setattr(FashionMNIST, "published", staticmethod(download))
    root = tmp_path / "root"
    with pytest.raises(InputError, match=r"download=true.*EmbeddedFashionMNIST"):
        FashionMNIST(root=str(root)).load("train")

    write_fashion_mnist(FashionMNIST.debian_folder, train=20, test=10, suffix=".gz")
    data = FashionMNIST(root=str(root), download=True)
    data.prepare_data()
    assert not downloaded  # found, so nothing to download
    assert len(data.load("train")) == 20

    shutil.rmtree(FashionMNIST.debian_folder)
    data.prepare_data()
    assert len(downloaded) == 1
    assert Path(downloaded[0]).parent == root  # a temporary folder, gone now
    assert [path.name for path in root.iterdir()] == ["FashionMNIST"]
    assert len(data.load("train")) == 40


def break_file(folder: Path, how: str) -> str:
    images, labels = folder / "train-images-idx3-ubyte", folder / "train-labels-idx1-ubyte"
    if how == "truncated":
        images.write_bytes(images.read_bytes()[:-5])
    elif how == "longer":
        images.write_bytes(images.read_bytes() + b"x")
    elif how == "empty":
        images.write_bytes(b"")
    elif how == "other format":
        images.write_bytes(b"\x89PNG" + bytes(40))
    elif how == "bad gzip":
        images.unlink()
        images.with_name(f"{images.name}.gz").write_bytes(b"\x1f\x8b" + bytes(30))
    elif how == "label out of range":
        write_idx(labels, torch.full((20,), 10))
        return labels.name
    elif how == "other count":
        write_idx(labels, torch.zeros(19))
        return labels.name
    return images.name


HOW = ["truncated", "longer", "empty", "other format", "bad gzip", "label out of range", "other count"]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.usefixtures("no_debian")
def test_broken_files_are_named(tmp_path: Path, how: str) -> None:
    write_fashion_mnist(tmp_path, train=20, test=10)
    name = break_file(tmp_path, how)
    with pytest.raises(InputError, match=name) as caught:
        FashionMNIST(root=str(tmp_path)).load("train")
    assert "\n" not in str(caught.value)


@given(data=st.binary(max_size=60) | st.binary(max_size=30).map(lambda tail: b"\x00\x00\x08" + tail))
def test_read_idx_reads_or_refuses(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any-idx"
    path.write_bytes(data)
    with contextlib.suppress(InputError):
        assert read_idx(path).dtype == torch.uint8


def test_embedded_sample() -> None:
    data = EmbeddedFashionMNIST()
    train, test = data.load("train"), data.load("test")
    assert train.images.shape == (6000, 1, 28, 28)
    assert train.targets.bincount().tolist() == [600] * 10
    assert test.targets.bincount().tolist() == [100] * 10
    digests = [{hashlib.sha256(image.numpy().tobytes()).digest() for image in part.images} for part in (train, test)]
    assert not digests[0] & digests[1]
    assert sum(path.stat().st_size for path in data.folder.iterdir()) < 4_000_000
    assert "Zalando" in (data.folder / "LICENSE").read_text()


@needs_full_set
def test_embedded_sample_is_what_its_script_makes(tmp_path: Path) -> None:
    path = Path(__file__).parents[2] / "experiments" / "make_embedded_sample.py"
    spec = importlib.util.spec_from_file_location("make_embedded_sample", path)
    assert spec is not None
    assert spec.loader is not None
    script: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main(DEBIAN, tmp_path)
    for file in tmp_path.iterdir():
        assert torch.equal(read_idx(file), read_idx(EmbeddedFashionMNIST.folder / file.name))


@needs_full_set
def test_full_set(tmp_path: Path) -> None:
    data = FashionMNIST(root=str(tmp_path))
    train, test = data.load("train"), data.load("test")
    assert [len(train), len(test)] == [60_000, 10_000]
    scaled = train.images.double() / 255
    assert round(float(scaled.mean()), 4) == data.mean[0]
    assert round(float(scaled.std()), 4) == data.std[0]
