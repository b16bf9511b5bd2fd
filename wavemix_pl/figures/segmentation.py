"""Segmentation samples (Fig. 4): image, truth and prediction side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wavemix_pl.pictures import classes_at, new_figure, paint, show

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch


@torch.no_grad()
def segment_images(model: Callable[[Tensor], Tensor], images: Tensor, size: Sequence[int]) -> Tensor:
    """The most probable class of each pixel, at the size of the masks: (B, C, H', W') -> (B, H, W)."""
    return classes_at(model(images), size)


def draw_segmentation(
    images: Tensor,
    truth: Tensor,
    predicted: Tensor,
    class_names: Sequence[str],
    colors: Sequence[Sequence[int]],
    void_index: int = 255,
) -> Figure:
    """One row for an image: the image, its mask, the predicted one; below, the colors of the classes that occur.

    Args:
        images: (N, C, H, W), 0 to 1.
        truth: (N, H, W).
        predicted: (N, H, W).
        class_names: In the order of the classes.
        colors: (red, green, blue) of each class, 0 to 255.
        void_index: Of pixels without a class; drawn white where it is no class of its own.
    """
    count, (height, width) = len(images), images.shape[-2:]
    row = 2.2 * height / width
    figure = new_figure(3 * 2.2 + 0.2, count * (row + 0.2) + 1.3)
    grid = figure.subplots(count, 3, squeeze=False)
    for axes, title in zip(grid[0], ("image", "truth", "prediction"), strict=True):
        axes.set_title(title, fontsize=9)
    for i in range(count):
        show(grid[i, 0], images[i])
        for axes, mask in ((grid[i, 1], truth[i]), (grid[i, 2], predicted[i])):
            show(axes, paint(mask.cpu(), colors))
        counted = truth[i] != void_index
        right = (predicted[i] == truth[i])[counted].double().mean()
        caption = f"{right:.0%} of the pixels right"
        grid[i, 2].text(0.5, -0.02, caption, transform=grid[i, 2].transAxes, ha="center", va="top", fontsize=7)
    present = sorted({*truth.unique().tolist(), *predicted.unique().tolist()})
    patches = [_patch(class_names[i], colors[i]) for i in present if i < len(class_names)]
    if any(i >= len(class_names) for i in present):
        patches.append(_patch("void, not counted", (255, 255, 255)))
    figure.legend(handles=patches, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def _patch(name: str, color: Sequence[int]) -> Patch:
    from matplotlib.patches import Patch

    red, green, blue = (part / 255 for part in color)
    return Patch(facecolor=(red, green, blue), edgecolor="gray", linewidth=0.5, label=name)
