"""Image files packed into tar archives, for file systems on which a million small files are slow."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from wavemix_pl.data.base import Split
from wavemix_pl.data.folder import FileImages, LabelledFiles
from wavemix_pl.data.image import open_pixels
from wavemix_pl.data.training_loader import BlockSampler, TrainingSampler
from wavemix_pl.errors import InputError

_ABOUT = "shards.json"
_ENTRY = np.dtype([("shard", "<i4"), ("offset", "<i8"), ("size", "<i8"), ("target", "<i8")])


class ShardData(FileImages):
    """Image files packed into tar archives by `wavemix-pl datasets shard`.

    The archives are in WebDataset's format, which other loaders read as well. Here an index beside them gives the place
    of each image, so that a run sees the same images in the same order as from files: each once in an epoch on however
    many devices and workers, and exactly where it stood when it goes on.

    Args:
        order: "images" draws from all archives at once, as from files; "shards" from a few archives at a time, one
            after the other, for storage that is slow at reading here and there. Each device then reads archives that
            no other reads, but for those at the ends of its share.
        kwargs: As in `FileImages`; `root` is the folder of the archives.

    Raises:
        InputError: No archives there.
    """

    def __init__(self, order: Literal["images", "shards"] = "images", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.order = order
        path = self.root / _ABOUT
        try:
            self._about = json.loads(path.read_bytes())
            self.class_names = list(self._about["class_names"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: cannot be read ({error}): 'wavemix-pl datasets shard NAME' writes archives and index"
            ) from None

    def found(self) -> Path | None:
        return self.root

    def divide(self) -> tuple[Dataset[Any], Dataset[Any]]:
        if "val" not in self._about["shards"]:
            return super().divide()
        return self.load("train"), ShardedImages(self.root, "val", self._about)

    def make_sampler(self, dataset: Dataset[Any], *arguments: Any, **more: Any) -> TrainingSampler:
        if self.order == "images":
            return super().make_sampler(dataset, *arguments, **more)
        return BlockSampler(dataset, *arguments, blocks=_shards(self.train_set), **more)

    def load(self, split: Split) -> ShardedImages:
        if split not in self._about["shards"]:
            raise InputError(f"{self.root} has no {split} images; it has {', '.join(self._about['shards'])}")
        return ShardedImages(self.root, split, self._about)


class ShardedImages(Dataset[Any]):
    """Images in archives, in the order of the files they come from. Items are (image (3, H, W) uint8, class).

    Args:
        folder: Of the archives.
        split: Which of them.
        about: What `shards.json` says.

    Raises:
        InputError: An archive or the index is not there or not whole; later, an image that cannot be read.
    """

    def __init__(self, folder: Path, split: str, about: dict[str, Any]) -> None:
        self._paths = [folder / name for name, _ in about["shards"][split]]
        for path, (_, size) in zip(self._paths, about["shards"][split], strict=True):
            if not path.is_file() or path.stat().st_size != size:
                raise InputError(f"{path}: not there, or not the {size:,} bytes that were written: copy it again")
        index = folder / f"{split}.npy"
        try:
            self.index = np.load(index, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise InputError(f"{index}: cannot be read ({error}): copy it again") from None
        if self.index.dtype != _ENTRY:
            raise InputError(f"{index}: no index of archives")
        self.targets = torch.from_numpy(self.index["target"].copy())
        self._open: dict[tuple[int, int], int] = {}  # (process, archive) -> descriptor: workers share no positions

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        entry = self.index[number]
        path = self._paths[entry["shard"]]
        key = (os.getpid(), int(entry["shard"]))
        if key not in self._open:
            self._open[key] = os.open(path, os.O_RDONLY)
        content = os.pread(self._open[key], int(entry["size"]), int(entry["offset"]))
        return open_pixels(f"{path}, image {number}", content=BytesIO(content)), self.targets[number]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}  # descriptors mean nothing in a worker that is spawned

    @property
    def shards(self) -> Tensor:
        """Number of the archive of each image."""
        return torch.from_numpy(self.index["shard"].astype(np.int64))


def _shards(dataset: Any) -> Tensor:
    """Number of the archive of each image, of all images or a part of them."""
    return _shards(dataset.dataset)[dataset.indices] if isinstance(dataset, Subset) else dataset.shards


def write_shards(
    parts: dict[str, LabelledFiles],
    class_names: list[str],
    folder: Path,
    shard_mb: float = 256,
    seed: int = 0,
    report: Callable[[str], None] = print,
) -> None:
    """Packs image files, as they are, into archives; training images in random order.

    Args:
        parts: Split -> files.
        class_names: In the order of the targets.
        folder: New or empty. Until the last archive is written it has no `shards.json` and cannot be used.
        shard_mb: Size of an archive in megabytes.
        seed: Of the order.
        report: Is told each archive when it is whole.

    Raises:
        InputError: The folder is not empty, or webdataset is not installed.
    """
    try:
        from webdataset import ShardWriter
    except ImportError:
        raise InputError("archives are written by webdataset: pip install 'wavemix_pl[shards]'") from None
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty: pass another --output, or remove what an earlier attempt left there")
    folder.mkdir(parents=True, exist_ok=True)
    shards: dict[str, list[tuple[str, int]]] = {}
    for split, files in parts.items():
        order = torch.randperm(len(files), generator=torch.Generator().manual_seed(seed)).tolist()
        pattern = str(folder / f"{split}-%06d.tar")
        with ShardWriter(pattern, maxcount=len(files), maxsize=shard_mb * 1e6, verbose=0, post=report) as writer:
            for number in order if split == "train" else sorted(order):
                path = Path(files.paths[number])
                image = {path.suffix.lower().removeprefix("."): path.read_bytes()}
                writer.write({"__key__": f"{number:09d}", **image, "cls": int(files.targets[number])})
        paths = sorted(folder.glob(f"{split}-*.tar"))
        np.save(folder / f"{split}.npy", _index(paths, files))
        shards[split] = [(path.name, path.stat().st_size) for path in paths]
    partial = folder / f".{_ABOUT}"
    partial.write_text(json.dumps({"class_names": class_names, "shards": shards}, indent=2) + "\n")
    partial.rename(folder / _ABOUT)


def _index(paths: list[Path], files: LabelledFiles) -> Any:
    """Where each image lies, as the archives say it themselves."""
    index = np.zeros(len(files), _ENTRY)
    for shard, path in enumerate(paths):
        with tarfile.open(path) as archive:
            for member in archive:
                key, _, suffix = member.name.partition(".")
                if suffix != "cls":
                    index[int(key)] = (shard, member.offset_data, member.size, int(files.targets[int(key)]))
    return index
