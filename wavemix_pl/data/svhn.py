"""SVHN: street view house numbers."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from torchvision import datasets

from wavemix_pl.data.about import About
from wavemix_pl.data.base import Split
from wavemix_pl.data.download import DownloadedImages
from wavemix_pl.data.tensor_images import TensorImages
from wavemix_pl.errors import InputError


class SVHN(DownloadedImages):
    """SVHN, cropped digits: 73,257 + 26,032 color images of 32x32 (Netzer et al. 2011), held in memory.

    `root` holds `train_32x32.mat` and `test_32x32.mat`. The files count the digit 0 as 10; here it is class 0.

    Args:
        kwargs: As in `DownloadedImages`.

    Raises:
        InputError: The files are not there or damaged, or SciPy, which reads them, is not installed.
    """

    class_names = tuple("0123456789")
    image_size = (32, 32)
    mean = (0.4377, 0.4438, 0.4728)  # of the training images, as widely used
    std = (0.1980, 0.2010, 0.1970)
    about = About(
        *(73_257, 26_032, 10), licence="non-commercial", source="http://ufldl.stanford.edu/housenumbers", size_gb=0.25
    )

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if importlib.util.find_spec("scipy") is None:
            raise InputError("SVHN's files are read by SciPy: pip install 'wavemix_pl[data]'")

    def download_to(self, folder: Path) -> None:
        for split in ("train", "test"):
            datasets.SVHN(str(folder), split=split, download=True)

    def found(self) -> Path | None:
        return self.root if all((self.root / f"{split}_32x32.mat").is_file() for split in ("train", "test")) else None

    def load(self, split: Split) -> TensorImages:
        if self.found() is None:
            raise InputError(f"no train_32x32.mat and test_32x32.mat in {self.root}: {self.about.how}")
        from scipy.io import loadmat

        path = self.root / f"{split}_32x32.mat"
        try:
            stored = loadmat(path, variable_names=("X", "y"))
            images, labels = torch.from_numpy(stored["X"]), torch.from_numpy(stored["y"]).flatten().long()
        except Exception as error:  # whatever SciPy meets in a damaged file
            raise InputError(f"{path}: cannot be read ({type(error).__name__}: {error}): get it anew") from None
        if images.shape[:3] != (32, 32, 3) or images.shape[-1] != len(labels):
            shapes = f"{tuple(images.shape)} and {tuple(labels.shape)}"
            raise InputError(f"{path}: expected X (32, 32, 3, N) and y (N,), got {shapes}")
        if len(labels) == 0 or int(labels.min()) < 1 or int(labels.max()) > 10:
            raise InputError(f"{path}: expected labels 1 to 10, got {sorted(set(labels.tolist()))}")
        return TensorImages(images.permute(3, 2, 0, 1).contiguous(), labels % 10)
