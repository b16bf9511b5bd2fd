"""The data that ships with the package."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from wavemix_pl.data.base import Split
from wavemix_pl.data.mnist import FashionImages, load_idx_images
from wavemix_pl.data.tensor_images import TensorImages


class EmbeddedFashionMNIST(FashionImages):
    """A sample of Fashion-MNIST that comes with the package: 600 + 100 real images of each class, in the same format.

    `experiments/make_embedded_sample.py` drew them; no test image occurs among the training images. MIT licence,
    Zalando SE (the file LICENSE beside the images).
    """

    folder: ClassVar[Path] = Path(__file__).parent / "embedded"

    def load(self, split: Split) -> TensorImages:
        return load_idx_images(self.folder, split, self.num_classes)
