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

_TITLE = 0.24  # room for two lines above an image, in widths of an image
_NAMED = 40  # so many classes a confusion matrix names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch


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
    columns, shape = min(columns, len(images)), images.shape[-2] / images.shape[-1]
    rows, height = math.ceil(len(images) / columns), shape + _TITLE
    figure = new_figure(1.5 * columns, 1.5 * height * rows)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))  # one for all: drawing takes a tenth of the time that it takes with one each
    for i, (image, target, guess) in enumerate(zip(images, targets, predicted, strict=True)):
        left, top, right = i % columns, i // columns * height, target == guess
        show(axes, image, extent=(left + 0.04, left + 0.96, top + height - 0.04, top + _TITLE))
        title = class_names[guess] if right else f"{class_names[guess]}\n(true: {class_names[target]})"
        place = {"ha": "center", "va": "bottom", "fontsize": 7, "color": "green" if right else "red"}
        axes.text(left + 0.5, top + _TITLE - 0.03, title, **place)  # type: ignore[arg-type]  # each of its own type
    axes.set(xlim=(0, columns), ylim=(rows * height, 0))
    return figure


def draw_confusion(counts: Tensor, class_names: Sequence[str]) -> Figure:
    """A confusion matrix: of each true class (row), the share of its images or pixels that got each class (column).

    Args:
        counts: (K, K), rows of the true class.
        class_names: In the order of the classes; they are written where there are not too many.
    """
    classes = len(counts)
    shares = counts.double() / counts.sum(1, keepdim=True).clamp_min(1)
    figure = new_figure(6.4, 5.4)
    axes = figure.subplots()
    show(axes, shares, cmap="viridis", vmin=0, vmax=1)
    axes.set_axis_on()
    axes.set(xlabel="predicted", ylabel="true")
    if classes <= _NAMED:
        ticks = range(classes)
        axes.set_xticks(ticks, labels=class_names, rotation=90, fontsize=7)
        axes.set_yticks(ticks, labels=class_names, fontsize=7)
        for row, column in shares.gt(0.005).nonzero().tolist():
            share = float(shares[row, column])
            color = "black" if share > 0.6 else "white"
            axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=6, color=color)
    figure.colorbar(axes.images[0], ax=axes, label="share of the true class")
    return figure


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
