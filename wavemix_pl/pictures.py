"""What pictures of images, predictions and masks have in common; no window system, nothing global."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from wavemix_pl.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """An empty figure.

    Args:
        width: In inches.
        height: In inches.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("pictures need matplotlib: pip install 'wavemix_pl[plots]'") from None
    return Figure(figsize=(width, height), layout="constrained")


def rendered(figure: Figure, format: str, dpi: int = 150, transparent: bool = False) -> bytes:
    """A figure as the content of a file; a figure that is drawn the same way gives the same bytes.

    The text of an SVG stays text, which can be searched, and is drawn with the reader's font.
    """
    from matplotlib import rc_context

    options: dict[str, Any] = {"format": format, "dpi": dpi, "transparent": transparent}
    if format == "svg":
        options["metadata"] = {"Date": None}
    content = io.BytesIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "wavemix_pl"}):
        figure.savefig(content, **options)
    return content.getvalue()


def inline_svg(figure: Figure) -> str:
    """The element <svg> for a page, without a background."""
    return re.sub(r"^.*?(?=<svg)", "", rendered(figure, "svg", transparent=True).decode(), flags=re.DOTALL)


def denormalize(images: Tensor, preprocessing: Mapping[str, Any]) -> Tensor:
    """Normalised images (..., C, H, W) back to 0...1, as they were seen before."""
    mean, std = (images.new_tensor(preprocessing[name]).view(-1, 1, 1) for name in ("mean", "std"))
    return (images * std + mean).clamp(0, 1)


def paint(masks: Tensor, colors: Sequence[Sequence[int]]) -> Tensor:
    """Masks (..., H, W) in the colors of their classes: (..., 3, H, W) uint8; void is white."""
    palette = torch.full((256, 3), 255, dtype=torch.uint8)
    palette[: len(colors)] = torch.tensor(colors, dtype=torch.uint8)
    return palette[masks.long()].movedim(-1, -3)


def classes_at(logits: Tensor, size: Sequence[int]) -> Tensor:
    """The most probable class of each pixel at another size, as `test` finds it: (B, K, H', W') -> (B, H, W)."""
    return F.interpolate(logits, size=list(size), mode="bilinear", align_corners=False).argmax(dim=1)


def show(axes: Axes, image: Tensor, **options: Any) -> None:
    """Draws an image (C, H, W) or a map (H, W) without axes, each pixel as a square."""
    pixels = image if image.ndim == 2 else image.permute(1, 2, 0).squeeze(-1)
    grey = {"cmap": "gray", "vmin": 0, "vmax": 1} if image.ndim == 3 and "cmap" not in options else {}
    axes.imshow(pixels.detach().cpu().numpy(), **{"interpolation": "none", **grey, **options})
    axes.set_axis_off()


def draw_predictions(
    images: Tensor, targets: Sequence[int], predicted: Sequence[int], class_names: Sequence[str], columns: int = 8
) -> Figure:
    """Images with the class that they were given, and with the true one where that is another.

    Args:
        images: (B, C, H, W), 0 to 1.
        targets: B classes.
        predicted: B classes.
        class_names: In the order of the classes.
        columns: Of the picture.
    """
    rows = math.ceil(len(images) / columns)
    figure = new_figure(1.5 * columns, 1.75 * rows)
    grid = figure.subplots(rows, columns, squeeze=False).flat
    for axes, image, target, guess in zip(grid, images, targets, predicted, strict=False):
        right = target == guess
        show(axes, image)
        title = class_names[guess] if right else f"{class_names[guess]}\n(true: {class_names[target]})"
        axes.set_title(title, fontsize=7, color="green" if right else "red")
    for axes in figure.axes:
        axes.set_axis_off()
    return figure
