"""Segmentation samples (Fig. 4): image, truth and prediction side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from wavemix_pl.pictures import classes_at, draw_segmentation

__all__ = ["draw_segmentation", "segment_images"]


@torch.no_grad()
def segment_images(model: Callable[[Tensor], Tensor], images: Tensor, size: Sequence[int]) -> Tensor:
    """The most probable class of each pixel, at the size of the masks: (B, C, H', W') -> (B, H, W)."""
    return classes_at(model(images), size)
