"""Images with masks: reading them, resizing and cropping both together; anyone's own folders of them."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms import v2

from wavemix_pl.data.augmentation import Transform, refuse_beside_masks
from wavemix_pl.data.base import ImageDataModule, Split
from wavemix_pl.data.image import open_ids, open_pixels
from wavemix_pl.errors import InputError


class ImageMaskPairs(Dataset[Any]):
    """Images and masks from files. Items are (image (3, H, W) uint8, mask (H, W) int64).

    Args:
        images: Paths.
        masks: Paths of as many files with an id in each pixel.
        class_of_id: (256,) class of each id; -1 for what is no id.

    Raises:
        InputError: A file that cannot be read, sizes that differ, or an unknown id, when it is met.
    """

    def __init__(self, images: Sequence[str], masks: Sequence[str], class_of_id: Tensor) -> None:
        self.images, self.masks, self.class_of_id = images, masks, class_of_id

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, ids = open_pixels(self.images[index]), open_ids(self.masks[index])
        if image.shape[-2:] != ids.shape:
            raise InputError(
                f"{self.masks[index]} is {tuple(ids.shape)}, its image {self.images[index]} {tuple(image.shape[-2:])}"
            )
        mask = self.class_of_id[ids.long()]
        if int(mask.min()) < 0:
            known = (self.class_of_id >= 0).nonzero().flatten().tolist()
            raise InputError(
                f"{self.masks[index]}: label id {int(ids[mask < 0][0])} is none of {', '.join(map(str, known))}"
            )
        return image, mask


class PairTransform:
    """Resizes an image, and in training crops it at random, with its mask; else the mask keeps its own size.

    Args:
        size: (H, W) of the images.
        crop: (H, W) of random crops, or None.
        void: Class with which a crop that is larger than the image is filled.
        training: Whether images are cropped, and masks follow them.
    """

    def __init__(
        self, size: tuple[int, int], crop: tuple[int, int] | None = None, void: int = 255, *, training: bool
    ) -> None:
        fill = {tv_tensors.Image: 0, tv_tensors.Mask: void}
        cut = [v2.RandomCrop(crop, pad_if_needed=True, fill=fill)] if crop and training else []
        self.steps, self.training = v2.Compose([v2.Resize(size, antialias=True), *cut]), training

    def __call__(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        if not self.training:
            return self.steps(image), mask
        image, mask = self.steps(tv_tensors.Image(image), tv_tensors.Mask(mask))
        return image.as_subclass(Tensor), mask.as_subclass(Tensor)


class MaskFolderData(ImageDataModule):
    """Your own images with masks.

    `root` holds `train/images` and `train/masks`, and if you like the same for `val` and `test`; without `val`, a part
    of the training images is kept for validation. The mask of `images/NAME.jpg` is `masks/NAME.png`: one number in each
    pixel, the class counted from 0, or 255 where there is none.

    Args:
        root: Folder of the data set.
        classes: Names, in the order of their numbers.
        image_size: (H, W) to which images are resized. Scores are computed at the size of the masks.
        crop_size: (H, W) of random crops of training images, or None.
        kwargs: As in `ImageDataModule`.

    Raises:
        InputError: A folder or a mask is missing, or no classes are named.
    """

    mean = (0.485, 0.456, 0.406)  # ImageNet's
    std = (0.229, 0.224, 0.225)

    def __init__(
        self,
        root: str = "data",
        classes: list[str] | None = None,
        image_size: tuple[int, int] = (256, 256),
        crop_size: tuple[int, int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        refuse_beside_masks(self.augment, self.regularization)
        if not classes or len(classes) > self.void_index:
            raise InputError("name the classes of the masks in the order of their numbers: --data.classes=[NAME,NAME]")
        if min(*image_size, *(crop_size or image_size)) < 1:
            raise InputError(f"image_size and crop_size must be positive numbers of pixels: {image_size}, {crop_size}")
        self.root, self.image_size, self.crop_size = Path(root).expanduser(), image_size, crop_size
        self.class_names, self.colors = list(classes), _distinct_colors(len(classes))

    def found(self) -> Path | None:
        return self.root

    def divide(self) -> tuple[Dataset[Any], Dataset[Any]]:
        return (self.load("train"), self._pairs("val")) if (self.root / "val").is_dir() else super().divide()

    def transform(self, training: bool) -> Transform:
        return PairTransform(self.image_size, self.crop_size, self.void_index, training=training)

    def load(self, split: Split) -> ImageMaskPairs:
        if split == "test" and not (self.root / "test").is_dir():
            raise InputError(f"{self.root} has no folder 'test': use 'wavemix-pl validate' for the validation images")
        return self._pairs(split)

    def _pairs(self, split: str) -> ImageMaskPairs:
        folder = self.root / split / "images"
        images = sorted(p for p in folder.glob("*") if p.suffix.lower() in IMG_EXTENSIONS)
        if not images:
            raise InputError(f"{folder}: no such folder, or no image files in it: pass --data.root=FOLDER")
        masks = [self.root / split / "masks" / f"{image.stem}.png" for image in images]
        missing = next((mask for mask in masks if not mask.is_file()), None)
        if missing:
            raise InputError(f"{missing}: no such file")
        class_of_id = torch.full((256,), -1, dtype=torch.int64)
        class_of_id[: self.num_classes] = torch.arange(self.num_classes)
        class_of_id[self.void_index] = self.void_index
        return ImageMaskPairs([str(path) for path in images], [str(path) for path in masks], class_of_id)


def _distinct_colors(count: int) -> list[tuple[int, int, int]]:
    """Black for the first class, then hues as far apart as they can be.

    >>> _distinct_colors(3)
    [(0, 0, 0), (230, 46, 46), (46, 230, 230)]
    """
    hues = (colorsys.hsv_to_rgb(i / max(count - 1, 1), 0.8, 0.9) for i in range(count - 1))
    return [(0, 0, 0), *((round(255 * r), round(255 * g), round(255 * b)) for r, g, b in hues)]
