"""Galaxy10 DECals: galaxies by their shape."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from wavemix_pl.data.about import About
from wavemix_pl.data.base import ImageDataModule, Split
from wavemix_pl.errors import InputError


class Galaxy10(ImageDataModule):
    """Galaxy10 DECals: 17,736 color images of 256x256 in 10 classes (Leung and Bovy 2019), from one HDF5 file.

    It has no official test images. As in the paper 10% of them are: drawn class by class, by `split_seed`; the
    validation images are drawn from the others. `fit` writes which are which into the run's `split.json`.

    Args:
        root: Folder with `Galaxy10_DECals.h5`, or the file itself.
        test_fraction: Share of each class that is kept for testing.
        kwargs: As in `ImageDataModule`.

    Raises:
        InputError: The file is not there, is damaged, lacks a key, or h5py is not installed.
    """

    class_names = (
        *("Disturbed", "Merging", "Round Smooth", "In-between Round Smooth", "Cigar Shaped Smooth", "Barred Spiral"),
        *("Unbarred Tight Spiral", "Unbarred Loose Spiral", "Edge-on without Bulge", "Edge-on with Bulge"),
    )
    image_size = (256, 256)
    mean = (0.485, 0.456, 0.406)  # ImageNet's: its weights are where the paper's best result starts from
    std = (0.229, 0.224, 0.225)
    about = About(
        *(15_964, 1_772, 10), licence="MIT", source="https://astronn.readthedocs.io/en/stable/galaxy10.html",
        size_gb=2.7, how="get Galaxy10_DECals.h5 from https://zenodo.org/records/10845026", note="split 90/10 here",
    )  # fmt: skip

    def __init__(self, root: str = "data", test_fraction: float = 0.1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if importlib.util.find_spec("h5py") is None:
            raise InputError("Galaxy10's file is read by h5py: pip install 'wavemix_pl[data]'")
        if not 0 < test_fraction < 1:
            raise InputError(f"test_fraction must lie between 0 and 1, got {test_fraction}")
        self.root, self.test_fraction = Path(root).expanduser(), test_fraction

    def found(self) -> Path | None:
        return next((p for p in (self.root, self.root / "Galaxy10_DECals.h5") if p.is_file()), None)

    def setup(self, stage: str) -> None:
        super().setup(stage)
        trainer = self.trainer
        if stage == "fit" and trainer is not None and trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._write_split(Path(trainer.default_root_dir) / "split.json")

    def _write_split(self, path: Path) -> None:
        """Writes the numbers of the images of each split."""
        parts = {"train": self.train_set, "val": self.val_set, "test": self.load("test")}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({name: _numbers(part) for name, part in parts.items()}))

    def load(self, split: Split) -> Subset[Any]:
        path = self.found()
        if path is None:
            raise InputError(f"no Galaxy10_DECals.h5 in {self.root}: {self.about.how}, and pass --data.root=FOLDER")
        images = HDF5Images(path, self.num_classes)
        return Subset(images, self.split_indices(images.targets)[split])

    def split_indices(self, targets: Tensor) -> dict[Split, list[int]]:
        """Numbers of the images in the file for each split; each class keeps its share in both."""
        rng = torch.Generator().manual_seed(self.split_seed)
        test: list[int] = []
        for label in range(self.num_classes):
            members = (targets == label).nonzero().flatten()
            drawn = members[torch.randperm(len(members), generator=rng)]
            test += drawn[: round(len(members) * self.test_fraction)].tolist()
        return {"train": sorted({*range(len(targets))} - {*test}), "test": sorted(test)}


def _numbers(part: Any) -> list[int]:
    """Numbers in the file of the images of a part, or of a part of a part."""
    if not isinstance(part, Subset):
        return list(range(len(part)))
    outer = _numbers(part.dataset)
    return [outer[index] for index in part.indices]


class HDF5Images(Dataset[Any]):
    """Images (N, H, W, 3) uint8 under the key `images`, their classes under `ans`. Each process opens the file itself.

    Raises:
        InputError: The file is damaged or lacks a key, or a label is out of range.
    """

    def __init__(self, path: Path, num_classes: int) -> None:
        import h5py

        self.path = path
        self._file: Any = None
        try:
            with h5py.File(path, "r") as file:
                missing = [key for key in ("images", "ans") if key not in file]
                if missing:
                    raise InputError(f"{path}: no key {missing[0]!r}, it has {', '.join(map(repr, file)) or 'none'}")
                images, self.targets = file["images"], torch.from_numpy(file["ans"][:]).long()
                shape, kind = images.shape, images.dtype
        # what HDF5 says of groups, links to nowhere, texts and references in the place of numbers
        except (OSError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: cannot be read as HDF5 ({error}): get it anew") from None
        if len(shape) != 4 or shape[-1] != 3 or kind != "uint8" or not shape[0] == len(self.targets) > 0:
            raise InputError(
                f"{path}: expected images (N, H, W, 3) uint8 and ans (N,), got {shape} {kind} and {len(self.targets)}"
            )
        if not 0 <= int(self.targets.min()) <= int(self.targets.max()) < num_classes:
            raise InputError(f"{path}: expected classes 0 to {num_classes - 1}, got {int(self.targets.max())}")

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if self._file is None:
            import h5py

            self._file = h5py.File(self.path, "r")
        try:
            pixels = torch.from_numpy(self._file["images"][index])
        except OSError as error:
            raise InputError(f"{self.path}: image {index} cannot be read ({error}): get the file anew") from None
        return pixels.permute(2, 0, 1), self.targets[index]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}  # open files do not go to another process
