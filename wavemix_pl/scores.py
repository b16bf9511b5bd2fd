"""Segmentation scores: intersection over union as Cityscapes defines it, and as the published code does."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassConfusionMatrix


class SegmentationScores(MulticlassConfusionMatrix):
    """Mean IoU, IoU of each class and pixel accuracy, from one confusion matrix over all images and ranks.

    Equal to the official Cityscapes evaluation: void pixels are left out; a class that neither occurs nor is predicted
    anywhere has no IoU (NaN) and does not count in the mean; one that does not occur but is predicted has IoU 0. Where
    void is a class that the model can predict, such a prediction counts as a miss.

    Args:
        num_classes: K.
        ignore_index: Target of void pixels: 255, or a class.
    """

    def __init__(self, num_classes: int, ignore_index: int = 255, **kwargs: Any) -> None:
        super().__init__(num_classes, ignore_index=ignore_index, **kwargs)

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Counts logits (B, K, H, W) or classes (B, H, W) against targets (B, H, W)."""
        super().update(preds, target)

    def scores(self) -> dict[str, Tensor]:
        """`miou`, `pixel_accuracy` and `iou` (K,), as fractions; the classes that have no IoU are NaN."""
        counts: Tensor = self.compute().double()
        right = counts.diagonal()
        iou = right / (counts.sum(0) + counts.sum(1) - right)
        if self.ignore_index is not None and 0 <= self.ignore_index < self.num_classes:
            iou[self.ignore_index] = torch.nan
        return {
            "miou": iou.nanmean().float(),
            "pixel_accuracy": (right.sum() / counts.sum()).float(),
            "iou": iou.float(),
        }


class PublishedScore(Metric):
    """What the published code reports under the name of mIoU; for comparison only.

    The class numbers of prediction and truth, void being 0, are joined bit by bit; their AND and their OR, summed over
    an image, take the place of intersection and union. The ratio is stretched from 0.5...1 to 0...1 and rounded up to
    the next tenth; the score is the mean over images. It is no intersection over union: where the truth is class 2, a
    prediction of class 3 counts in part.

    Args:
        ignore_index: Target of void pixels; if 255, the classes are numbered from 1 for this score.
    """

    higher_is_better = True
    total: Tensor
    images: Tensor

    def __init__(self, ignore_index: int = 255, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ignore_index = ignore_index
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("images", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        classes = preds.argmax(dim=1) if preds.ndim == target.ndim + 1 else preds
        if self.ignore_index == 255:
            classes, target = classes + 1, torch.where(target == 255, 0, target + 1)
        joint, either = ((classes & target).sum((1, 2)).double(), (classes | target).sum((1, 2)).double())
        ratio = (joint + 1e-6) / (either + 1e-6)
        self.total += ((20 * (ratio - 0.5)).clamp(0, 10).ceil() / 10).sum()
        self.images += len(target)

    def compute(self) -> Tensor:
        return (self.total / self.images).float()
