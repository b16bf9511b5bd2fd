"""The mark of generated images: a file beside them by which no run on them can pass for a real one."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from wavemix_pl.errors import InputError

_NAME = "generated-images.json"
_STATEMENT = (
    "The images in this folder are random numbers in the layout of a data set. No score on them means anything."
)


@dataclass(frozen=True)
class Manifest:
    """What `generated-images.json` says of the images beside and below it: all that it takes to generate them again.

    Attributes:
        dataset: Name of the data module whose layout they have.
        images: Number of training images; there are half as many test images.
        seed: Of the random numbers.
    """

    dataset: str
    images: int
    seed: int

    def __post_init__(self) -> None:
        if self.images < 6 or self.seed < 0:
            raise InputError(
                f"expected 6 images or more, a tenth of which makes one for validation, and a seed of 0 or more, got "
                f"{self.images} and {self.seed}"
            )

    @property
    def counts(self) -> dict[Literal["train", "test"], int]:
        """Images of each split."""
        return {"train": self.images, "test": self.images // 2}

    def rng(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    def write(self, folder: Path) -> None:
        (folder / _NAME).write_text(json.dumps({"statement": _STATEMENT, **asdict(self)}, indent=2) + "\n")


def find_manifest(path: Path) -> tuple[Path, Manifest] | None:
    """The `generated-images.json` that is nearest above a file or folder, and what it says; None for real data.

    Raises:
        InputError: It cannot be read.
    """
    places = (folder / _NAME for folder in (path.resolve(), *path.resolve().parents))
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        return None
    try:
        values = json.loads(found.read_bytes())
        return found, Manifest(str(values["dataset"]), int(values["images"]), int(values["seed"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{found}: cannot be read ({error}): remove it if the images beside it are real") from None
