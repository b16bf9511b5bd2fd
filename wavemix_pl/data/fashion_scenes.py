"""FashionScenes: a segmentation set composed of the Fashion-MNIST images that come with the package."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from wavemix_pl.data.augmentation import refuse_beside_masks
from wavemix_pl.data.base import ImageDataModule
from wavemix_pl.data.embedded import EmbeddedFashionMNIST
from wavemix_pl.data.mnist import FashionImages, load_idx_images
from wavemix_pl.data.tensor_images import TensorImages
from wavemix_pl.errors import InputError

_VOID = 255


class FashionScenes(ImageDataModule):
    """Grey 64x64 scenes of two or three garments over clutter, with the class of each pixel.

    Garments differ in scale and place, reach over the border and hide each other; a rim of about a pixel around each is
    void. Scene number i of a split is always the same. Training, validation and test scenes are made of different
    garments: the embedded training images, those of them that are held out, and the embedded test images.

    Args:
        scenes: Number of training scenes.
        val_scenes: Number of validation scenes.
        test_scenes: Number of test scenes.
        kwargs: As in `ImageDataModule`; `val_fraction` is the share of the garments that is held out.
    """

    class_names = ("background", *FashionImages.class_names)
    in_channels = 1
    image_size = (64, 64)
    mean = FashionImages.mean
    std = FashionImages.std
    colors = (
        *((0, 0, 0), (230, 25, 75), (60, 180, 75), (255, 225, 25), (0, 130, 200), (245, 130, 48)),
        *((145, 30, 180), (70, 240, 240), (240, 50, 230), (210, 245, 60), (250, 190, 212)),
    )

    def __init__(self, scenes: int = 2000, val_scenes: int = 200, test_scenes: int = 300, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        refuse_beside_masks(self.augment, self.regularization)
        if min(scenes, val_scenes, test_scenes) < 1:
            raise InputError(f"each split needs a scene at least, got {scenes}, {val_scenes}, {test_scenes}")
        self.scenes, self.val_scenes, self.test_scenes = scenes, val_scenes, test_scenes

    def divide(self) -> tuple[TensorImages, TensorImages]:
        garments, held_out = self._split(self._garments("train"))
        return (
            compose_scenes(_pick(garments), self.scenes, seed=1),
            compose_scenes(_pick(held_out), self.val_scenes, seed=2),
        )

    def load(self, split: Literal["train", "test"]) -> TensorImages:
        seed, count = (1, self.scenes) if split == "train" else (3, self.test_scenes)
        return compose_scenes(self._garments(split), count, seed)

    def _garments(self, split: Literal["train", "test"]) -> TensorImages:
        return load_idx_images(EmbeddedFashionMNIST.folder, split, len(FashionImages.class_names))


def compose_scenes(garments: TensorImages, count: int, seed: int) -> TensorImages:
    """Makes scenes (N, 1, 64, 64) uint8 and masks (N, 64, 64) int64: 0 background, 1 + class, 255 void."""
    images, masks = zip(*(_compose(garments, seed * 1_000_003 + number) for number in range(count)), strict=True)
    return TensorImages(torch.stack(images), torch.stack(masks))


def _compose(garments: TensorImages, seed: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    size = FashionScenes.image_size
    scene = _clutter(size, rng)
    mask = torch.zeros(size, dtype=torch.int64)
    for index in torch.randint(len(garments), (int(torch.randint(2, 4, (), generator=rng)),), generator=rng).tolist():
        image, label = garments[index]
        side = int(torch.randint(28, 45, (), generator=rng))
        pixels = F.interpolate(image[None].float() / 255, size=(side, side), mode="bilinear", antialias=True)[0, 0]
        # at least half of the garment lies inside
        top, left = (int(torch.randint(-side // 4, edge - 3 * side // 4, (), generator=rng)) for edge in size)
        shape = torch.zeros(size)
        rows, columns = slice(max(top, 0), top + side), slice(max(left, 0), left + side)
        inside = pixels[max(-top, 0) :, max(-left, 0) :][: size[0] - rows.start, : size[1] - columns.start]
        shape[rows, columns] = inside
        body = (shape > 0.1).float()[None, None]
        grown, shrunk = F.max_pool2d(body, 3, 1, 1)[0, 0] > 0, -F.max_pool2d(-body, 3, 1, 1)[0, 0] > 0
        scene = torch.where(body[0, 0] > 0, shape, scene)
        mask = torch.where(grown, torch.where(shrunk, 1 + label, _VOID), mask)
    return (scene * 255).round().to(torch.uint8)[None], mask


def _clutter(size: tuple[int, int], rng: torch.Generator) -> Tensor:
    """Cloudy grey with a few boxes and lines."""
    coarse = torch.rand(1, 1, 6, 6, generator=rng)
    scene = 0.4 * F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)[0, 0]
    for _ in range(int(torch.randint(1, 5, (), generator=rng))):
        top, left = (int(torch.randint(0, edge - 3, (), generator=rng)) for edge in size)
        height, width = (int(torch.randint(1, 20, (), generator=rng)) for _ in size)
        scene[top : top + height, left : left + width] = 0.6 * float(torch.rand((), generator=rng))
    return (scene + 0.03 * torch.randn(size, generator=rng)).clamp(0, 1)


def _pick(subset: Any) -> TensorImages:
    """The images of a subset as a data set of their own."""
    return TensorImages(*subset.dataset.__getitems__(subset.indices))
