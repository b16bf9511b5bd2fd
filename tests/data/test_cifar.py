"""CIFAR and SVHN in their makers' layouts, downloads that are whole or absent."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import datasets

from wavemix_pl.data import CIFAR10, CIFAR100, SVHN
from wavemix_pl.data.cifar import generated_files
from wavemix_pl.data.download import staged
from wavemix_pl.data.generated import write_dataset
from wavemix_pl.data.manifest import Manifest
from wavemix_pl.errors import InputError


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def write_cifar(root: Path, monkeypatch: pytest.MonkeyPatch, kind: type[CIFAR10]) -> None:
    """Files of 40 and 20 generated images that pass for the published ones: torchvision is told their checksums."""
    published, files = kind.published, generated_files(kind, Manifest(kind.__name__, images=40, seed=0))
    folder = root / published.base_folder
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    for part in ("train_list", "test_list"):
        monkeypatch.setattr(published, part, [[name, md5(files[name])] for name, _ in getattr(published, part)])
    monkeypatch.setattr(published, "meta", {**published.meta, "md5": md5(files[published.meta["filename"]])})


@pytest.fixture(params=[CIFAR10, CIFAR100])
def kind(request: pytest.FixtureRequest) -> type[CIFAR10]:
    return request.param  # type: ignore[no-any-return]


def test_equals_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[CIFAR10]) -> None:
    write_cifar(tmp_path, monkeypatch, kind)
    data = kind(root=str(tmp_path), batch_size=4)
    for split in ("train", "test"):
        ours, theirs = data.load(split), kind.published(str(tmp_path), train=split == "train")  # type: ignore[arg-type]
        assert ours.targets.tolist() == theirs.targets
        assert torch.equal(ours.images.permute(0, 2, 3, 1), torch.from_numpy(theirs.data))
        assert list(data.class_names) == theirs.classes
    data.setup("fit")
    images, targets = next(iter(data.train_dataloader()))
    assert (images.shape, images.dtype, targets.dtype) == ((4, 3, 32, 32), torch.uint8, torch.int64)


def test_missing_and_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = CIFAR10(root=str(tmp_path))
    assert data.found() is None
    with pytest.raises(InputError, match="download=true"):
        data.load("train")
    write_cifar(tmp_path, monkeypatch, CIFAR10)
    assert data.found() == tmp_path / "cifar-10-batches-py"
    batch = tmp_path / "cifar-10-batches-py" / "data_batch_2"
    batch.write_bytes(batch.read_bytes()[:-9])
    with pytest.raises(InputError, match="checksum"):
        data.load("train")


def archive(source: Path, member: str | None = None) -> bytes:
    """A .tar.gz of what is in a folder; `member` names one more that would leave the folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for path in source.iterdir():
            tar.add(path, path.name)
        if member:
            tar.addfile(tarfile.TarInfo(member))
    return buffer.getvalue()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Puts bytes on a web server of this process, as CIFAR-10's archive."""
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def put(data: bytes, checksum: str | None = None) -> None:
            (folder / datasets.CIFAR10.filename).write_bytes(data)
            address = f"http://127.0.0.1:{server.server_port}/{datasets.CIFAR10.filename}"
            monkeypatch.setattr(datasets.CIFAR10, "url", address)
            monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", checksum or md5(data))

        yield put
        server.shutdown()


def test_a_download_arrives_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offer: Callable[..., None]) -> None:
    write_cifar(tmp_path / "source", monkeypatch, CIFAR10)
    offer(archive(tmp_path / "source"))
    root = tmp_path / "root"
    CIFAR10(root=str(root)).prepare_data()
    assert not root.exists()  # only when asked
    data = CIFAR10(root=str(root), download=True)
    data.prepare_data()
    assert len(data.load("train")) == 40
    assert not list(root.glob(".partial-*"))


@pytest.mark.parametrize("how", ["checksum", "truncated", "outside"])
def test_a_bad_download_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offer: Callable[..., None], how: str
) -> None:
    write_cifar(tmp_path / "source", monkeypatch, CIFAR10)
    data = archive(tmp_path / "source", "../../escaped" if how == "outside" else None)
    data = data[: len(data) // 2] if how == "truncated" else data
    offer(data, "0" * 32 if how == "checksum" else None)
    root = tmp_path / "root"
    with pytest.raises(InputError, match="nothing was kept"):
        CIFAR10(root=str(root), download=True).prepare_data()
    assert list(root.iterdir()) == []
    assert not list(tmp_path.rglob("escaped"))


def test_staged_merges_folders_and_vanishes_after_any_error(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").write_text("old")
    with staged(tmp_path) as folder:
        (folder / "a").mkdir()
        (folder / "a" / "new").write_text("new")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["new", "old"]
    with pytest.raises(KeyboardInterrupt), staged(tmp_path) as folder:
        _write_and_stop(folder / "half")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def _write_and_stop(path: Path) -> None:
    path.write_text("half")
    raise KeyboardInterrupt


def test_svhn_equals_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("scipy")
    write_dataset("SVHN", tmp_path, images=20)
    monkeypatch.setattr("torchvision.datasets.svhn.check_integrity", lambda *arguments: True)
    for split in ("train", "test"):
        ours = SVHN(root=str(tmp_path)).load(split)  # type: ignore[arg-type]
        theirs = datasets.SVHN(str(tmp_path), split=split)
        assert torch.equal(ours.images, torch.from_numpy(theirs.data))
        assert ours.targets.tolist() == theirs.labels.tolist()
        assert ours.targets[9] == 0  # stored as 10


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"y": np.full((10, 1), 11)}, "expected labels 1 to 10"),
        ({"y": np.ones((9, 1))}, "expected X"),
        (None, "cannot be read"),
    ],
)
def test_svhn_damaged(tmp_path: Path, changes: dict[str, Any] | None, said: str) -> None:
    io = pytest.importorskip("scipy.io")
    with pytest.raises(InputError, match="download=true"):
        SVHN(root=str(tmp_path)).load("train")
    write_dataset("SVHN", tmp_path)
    path = tmp_path / "train_32x32.mat"
    if changes is None:
        path.write_bytes(b"MATLAB" + bytes(300))
    else:
        io.savemat(path, {"X": io.loadmat(path)["X"], **changes})
    with pytest.raises(InputError, match=f"train_32x32.mat: {said}") as caught:
        SVHN(root=str(tmp_path)).load("train")
    assert "\n" not in str(caught.value)
