"""What is done to training images: some of it image by image where they are loaded, some to whole batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from wavemix_pl.errors import InputError

Augment = Literal["none", "flip", "trivial", "rand"]
Transform = Callable[..., Any]  # as torchvision's: of an image, or of an image and its target, and returns the same

_SINGLE: dict[Augment, Callable[[], Transform]] = {"trivial": v2.TrivialAugmentWide, "rand": v2.RandAugment}


@dataclass(frozen=True)
class Regularization:
    """The rest of Table 4's recipe, for images without masks.

    Attributes:
        flip: Whether half of the images are mirrored, beside whatever `augment` does.
        erasing: Probability with which a rectangle of an image is replaced by the mean color.
        mixup: Parameter alpha of mixup's beta distribution; 0 for none.
        cutmix: Likewise of CutMix; where both are above 0, each batch gets one of them.
    """

    flip: bool = False
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.erasing <= 1 or min(self.mixup, self.cutmix) < 0:
            raise InputError(f"erasing is a probability, mixup and cutmix are at least 0, got {self}")


PLAIN = Regularization()


def single_image_transform(augment: Augment, erasing: float, mean: Sequence[float]) -> Transform | None:
    """What is done to an image (C, H, W) uint8 by itself, or None."""
    steps: list[Any] = [_SINGLE[augment]()] if augment in _SINGLE else []
    if erasing:
        steps.append(v2.RandomErasing(erasing, value=[round(255 * value) for value in mean]))
    return v2.Compose(steps) if steps else None


def flip(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Mirrors half of the images (B, C, H, W), with their masks where targets are (B, H, W)."""
    flipped = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    if targets.ndim == 3:
        targets = torch.where(flipped[:, 0], targets.flip(-1), targets)
    return torch.where(flipped, images.flip(-1), images), targets


def mix(images: Tensor, targets: Tensor, num_classes: int, mixup: float, cutmix: float) -> tuple[Tensor, Tensor]:
    """Mixes each image with another of its batch; the targets (B,) become shares of the classes (B, K)."""
    kinds = [v2.MixUp(alpha=mixup, num_classes=num_classes)] if mixup else []
    kinds += [v2.CutMix(alpha=cutmix, num_classes=num_classes)] if cutmix else []
    mixed: tuple[Tensor, Tensor] = v2.RandomChoice(kinds)(images, targets) if kinds else (images, targets)
    return mixed


class TransformedImages(Dataset[Any]):
    """Another data set's images, each transformed by itself with its target.

    What is random about it depends on the seed, the epoch and the image alone: not on workers, nor on a resume. An
    index says the epoch as well: epoch * number of images + image, as `TrainingSampler` makes them.

    Args:
        dataset: Of (image, target).
        transform: Of an image (C, H, W) and its target.
        seed: Of the run.
    """

    def __init__(self, dataset: Any, transform: Transform, seed: int = 0) -> None:
        self.dataset, self.transform, self.seed = dataset, transform, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        item = self.dataset[index % len(self)]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(hash((self.seed, index)))  # torch.manual_seed would seed GPUs as well
            image, target = self.transform(*item)
            return image, target


def refuse_beside_masks(augment: Augment, regularization: Regularization) -> None:
    """Refuses what would change images and leave their masks.

    Raises:
        InputError: It is anything but a flip.
    """
    if augment not in ("none", "flip") or regularization != Regularization(regularization.flip):
        raise InputError(
            f"augment={augment} with {regularization} would change images and leave their masks: only flips are for "
            "masks"
        )
