"""Segmentation at test time: single scale as in the paper, several scales and flips, windows for large images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from wavemix_pl.errors import InputError

Model = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class TestTime:
    """How a segmentation model looks at an image at test time. As it stands, once and whole, as in the paper.

    Attributes:
        scales: Factors by which the images are resized, bilinearly; the probabilities are resized back.
        flip: Whether each scale is also seen in a mirror.
        window: (rows, columns) of a sliding window, for images that are too large to be seen whole, or None.
        overlap: Share of a window that the next one covers again.

    Raises:
        InputError: A value that is out of range.
    """

    __test__ = False  # no test class, whatever its name says to pytest

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    window: tuple[int, int] | None = None
    overlap: float = 0.5

    def __post_init__(self) -> None:
        if not self.scales or min(self.scales) <= 0:
            raise InputError(f"scales must be one or more positive numbers, got {self.scales}")
        if self.window is not None and min(self.window) < 1:
            raise InputError(f"window must be two positive numbers of pixels, got {self.window}")
        if not 0 <= self.overlap < 1:
            raise InputError(f"overlap must be at least 0 and below 1, got {self.overlap}")


PLAIN = TestTime()


def segment(model: Model, images: Tensor, how: TestTime = PLAIN) -> Tensor:
    """Logits of a segmentation model, averaged as probabilities over scales and flips.

    Args:
        model: Images (B, C, H, W) -> logits (B, K, H, W).
        images: (B, C, H, W).
        how: Scales, flips and windows.

    Returns:
        (B, K, H, W): the logits themselves for one scale without flip, else the logarithm of the mean probability.
    """
    if tuple(how.scales) == (1.0,) and not how.flip:
        return slide(model, images, how)
    size = images.shape[-2:]
    total = torch.zeros(())
    for scale in how.scales:
        target = [max(1, round(side * scale)) for side in size]
        resized = F.interpolate(images, size=target, mode="bilinear", align_corners=False) if scale != 1 else images
        for mirrored in (False, True) if how.flip else (False,):
            logits = slide(model, resized.flip(-1) if mirrored else resized, how)
            probabilities = (logits.flip(-1) if mirrored else logits).float().softmax(dim=1)
            if probabilities.shape[-2:] != size:
                probabilities = F.interpolate(probabilities, size=size, mode="bilinear", align_corners=False)
            total = total.to(probabilities) + probabilities
    return (total / total.sum(dim=1, keepdim=True)).clamp_min(torch.finfo(total.dtype).tiny).log()


def slide(model: Model, images: Tensor, how: TestTime) -> Tensor:
    """Logits by a window that slides over the images; where windows overlap, their mean."""
    height, width = images.shape[-2:]
    if how.window is None or (how.window[0] >= height and how.window[1] >= width):
        return model(images)
    rows, columns = how.window
    total = seen = torch.zeros(())
    for top in _starts(height, rows, how.overlap):
        for left in _starts(width, columns, how.overlap):
            at = (..., slice(top, top + rows), slice(left, left + columns))
            logits = model(images[at]).float()
            if total.ndim == 0:
                total = logits.new_zeros(len(images), logits.shape[1], height, width)
                seen = logits.new_zeros(height, width)
            total[at] += logits
            seen[at] += 1
    return total / seen


def _starts(side: int, window: int, overlap: float) -> list[int]:
    """Where windows begin, so that all of a side is covered and the last window ends with it.

    >>> _starts(10, 4, 0.5)
    [0, 2, 4, 6]
    >>> _starts(11, 4, 0.0)
    [0, 4, 7]
    >>> _starts(3, 4, 0.5)
    [0]
    """
    last = max(side - window, 0)
    step = max(1, round(window * (1 - overlap)))
    return [*range(0, last, step), last]
