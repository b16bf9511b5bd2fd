"""Cityscapes: street scenes with the class of each pixel (Cordts et al. 2016)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision import datasets

from wavemix_pl.data.about import About
from wavemix_pl.data.augmentation import Transform, refuse_beside_masks
from wavemix_pl.data.base import ImageDataModule, Split
from wavemix_pl.data.pairs import ImageMaskPairs, PairTransform
from wavemix_pl.errors import InputError

_VOID = 255
_CLASSES = sorted((c for c in datasets.Cityscapes.classes if not c.ignore_in_eval), key=lambda c: c.train_id)
_KNOWN_IDS = [c.id for c in datasets.Cityscapes.classes if c.id >= 0]


class Cityscapes(ImageDataModule):
    """Cityscapes, fine annotations: 2,975 + 500 images of 1024x2048 pixels, 19 classes and void.

    Validation images are held out of the official training images; `test` computes the scores on the official
    validation images, whose masks stay at full resolution whatever size the images have. The data needs a log-in at
    its makers' site; `root` holds its folders `leftImg8bit` and `gtFine`, as unpacked.

    Args:
        root: Folder with `leftImg8bit` and `gtFine`, or with a folder `cityscapes` that has them.
        image_size: (H, W) to which images are resized: (1024, 2048), (512, 1024) or (256, 512) in the paper's Table 6.
        crop_size: (H, W) of random crops of training images, or None. Where a crop is larger, it is filled with void.
        void_as_class: The published code's 20 classes: void is class 0, trained like the others. Scores leave pixels
            whose truth is void out all the same.
        kwargs: As in `ImageDataModule`.

    Raises:
        InputError: The folders are not there, sizes of an image and its mask that differ, or an unknown label id; the
            file is named.
    """

    mean = (0.485, 0.456, 0.406)  # ImageNet's, as in the published code
    std = (0.229, 0.224, 0.225)
    about = About(
        *(2_975, 500, 19), licence="non-commercial", source="https://www.cityscapes-dataset.com", size_gb=11.8,
        how="unpack leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip from www.cityscapes-dataset.com",
        note="log-in needed",
    )  # fmt: skip

    def __init__(
        self,
        root: str = "data",
        image_size: tuple[int, int] = (1024, 2048),
        crop_size: tuple[int, int] | None = None,
        void_as_class: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        refuse_beside_masks(self.augment, self.regularization)
        for name, size in (("image_size", image_size), ("crop_size", crop_size)):
            if size is not None and min(size) < 1:
                raise InputError(f"{name} must be two positive numbers of pixels, got {size}")
        self.root, self.image_size, self.crop_size = Path(root).expanduser(), image_size, crop_size
        first = [("void", 0, (0, 0, 0))] if void_as_class else []
        classes = [*first, *((c.name, c.id, c.color) for c in _CLASSES)]
        self.class_names, self.label_ids, self.colors = ([c[i] for c in classes] for i in range(3))
        self.void_index = 0 if void_as_class else _VOID

    def found(self) -> Path | None:
        return self._root("train")

    def transform(self, training: bool) -> Transform:
        return PairTransform(self.image_size, self.crop_size, self.void_index, training=training)

    def load(self, split: Split) -> ImageMaskPairs:
        return self._pairs("train" if split == "train" else "val")

    def _pairs(self, split: str) -> ImageMaskPairs:
        root = self._root(split)
        if root is None:
            raise InputError(
                f"no Cityscapes in {self.root}: it needs leftImg8bit/{split} and gtFine/{split}; {self.about.how}"
            )
        files = datasets.Cityscapes(str(root), split=split, mode="fine", target_type="semantic")
        if not files.images:
            raise InputError(f"{root / 'leftImg8bit' / split}: no images")
        # torchvision lists folders as the file system does; the split must not depend on that
        images, masks = zip(*sorted(zip(files.images, (t[0] for t in files.targets), strict=True)), strict=True)
        missing = next((path for path in [*images, *masks] if not Path(path).is_file()), None)
        if missing:
            raise InputError(f"{missing}: no such file")
        return ImageMaskPairs(images, masks, self._class_of_id())

    def _root(self, split: str) -> Path | None:
        parts = [Path("gtFine", split), Path("leftImg8bit", split)]
        places = (self.root, self.root / "cityscapes")
        return next((place for place in places if all((place / part).is_dir() for part in parts)), None)

    def _class_of_id(self) -> Tensor:
        """Class of each of the 256 values of a mask; -1 for what is no label id."""
        table = torch.full((256,), -1, dtype=torch.int64)
        table[_KNOWN_IDS] = self.void_index
        assert self.label_ids is not None
        for number, label_id in enumerate(self.label_ids):
            table[label_id] = number
        return table
