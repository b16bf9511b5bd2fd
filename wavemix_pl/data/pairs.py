"""Images with masks: reading them, resizing and cropping both together; anyone's own folders of them."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

from wavemix_pl.data.base import ImageDataModule, Split, no_single_images
from wavemix_pl.data.folder import open_rgb
from wavemix_pl.errors import InputError


class ImageMaskPairs(Dataset[Any]):
    """Images and masks from files: resized and cropped together in training, the mask at its own size otherwise.

    Items are (image (3, H, W) uint8, mask (H, W) int64).

    Args:
        images: Paths.
        masks: Paths of as many files with an id in each pixel.
        class_of_id: (256,) class of each id; -1 for what is no id.
        size: (H, W) of the images; None leaves them as they are.
        crop: (H, W) of random crops, or None.
        void: Class with which a crop that is larger than the image is filled.
        training: Whether masks follow their images.

    Raises:
        InputError: A file that cannot be read, sizes that differ, or an unknown id, when it is met.
    """

    def __init__(
        self,
        images: Sequence[str],
        masks: Sequence[str],
        class_of_id: Tensor,
        size: tuple[int, int] | None,
        *,
        crop: tuple[int, int] | None = None,
        void: int = 255,
        training: bool = False,
    ) -> None:
        self.images, self.masks, self.class_of_id, self.training = images, masks, class_of_id, training
        resize = [v2.Resize(size, antialias=True)] if size else []
        fill = {tv_tensors.Image: 0, tv_tensors.Mask: void}
        cut = [v2.RandomCrop(crop, pad_if_needed=True, fill=fill)] if crop else []
        self.resize = v2.Compose([*resize, *cut]) if resize or cut else v2.Identity()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, ids = open_rgb(self.images[index]), open_ids(self.masks[index])
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
        if self.training:
            image, mask = self.resize(tv_tensors.Image(image), tv_tensors.Mask(mask))
            return image.as_subclass(Tensor), mask.as_subclass(Tensor)
        return self.resize(tv_tensors.Image(image)).as_subclass(Tensor), mask


def open_ids(path: str) -> Tensor:
    """The ids (H, W) uint8 in the pixels of a mask file, grey or with a palette."""
    try:
        with Image.open(path) as image:
            if image.mode not in ("L", "P", "1"):
                raise InputError(f"{path}: a mask has one number of 8 bits in each pixel, not mode {image.mode}")
            ids: Tensor = TF.pil_to_tensor(image)[0]
            return ids
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # PIL's words for a damaged file
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read as an image ({error})") from None


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
        no_single_images(self)
        if not classes or len(classes) > self.void_index:
            raise InputError("name the classes of the masks in the order of their numbers: --data.classes=[NAME,NAME]")
        if min(*image_size, *(crop_size or image_size)) < 1:
            raise InputError(f"image_size and crop_size must be positive numbers of pixels: {image_size}, {crop_size}")
        self.root, self.image_size, self.crop_size = Path(root).expanduser(), image_size, crop_size
        self.class_names, self.colors = list(classes), _distinct_colors(len(classes))

    def found(self) -> Path | None:
        return self.root

    def setup(self, stage: str) -> None:
        if stage in ("fit", "validate") and self.train_set is None:
            if (self.root / "val").is_dir():
                self.train_set, self.val_set = self._pairs("train", training=True), self._pairs("val")
            else:
                self.train_set, _ = self._split(self._pairs("train", training=True))
                _, self.val_set = self._split(self._pairs("train"))
        super().setup(stage)

    def load(self, split: Split) -> ImageMaskPairs:
        if split == "test" and not (self.root / "test").is_dir():
            raise InputError(f"{self.root} has no folder 'test': use 'wavemix-pl validate' for the validation images")
        return self._pairs(split)

    def _pairs(self, split: str, training: bool = False) -> ImageMaskPairs:
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
        crop = self.crop_size if training else None
        names = [str(path) for path in images], [str(path) for path in masks]
        size, void = self.image_size, self.void_index
        return ImageMaskPairs(names[0], names[1], class_of_id, size, crop=crop, void=void, training=training)


def _distinct_colors(count: int) -> list[tuple[int, int, int]]:
    """Black for the first class, then hues as far apart as they can be.

    >>> _distinct_colors(3)
    [(0, 0, 0), (230, 46, 46), (46, 230, 230)]
    """
    hues = (colorsys.hsv_to_rgb(i / max(count - 1, 1), 0.8, 0.9) for i in range(count - 1))
    return [(0, 0, 0), *((round(255 * r), round(255 * g), round(255 * b)) for r, g, b in hues)]
