"""The README's picture: what the transform does, how far a block sees, and what a trained model answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from wavemix_pl.figures.occlusion import Example
from wavemix_pl.figures.subbands import subbands
from wavemix_pl.pictures import new_figure, show

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure, SubFigure

_COLORS = ("#ffd166", "#f78c6b", "#ef476f", "#4cc9f0")
_SIDE, _GREYS = 192, 24  # of photograph and pyramid: a small file


def middle(image: Tensor) -> Tensor:
    """The square in the middle of an image, of three quarters of its shorter side: (1, H, W) -> (1, 192, 192)."""
    side = 3 * min(image.shape[-2:]) // 4
    top, left = ((extent - side) // 2 for extent in image.shape[-2:])
    pooled: Tensor = F.adaptive_avg_pool2d(image[:, top : top + side, left : left + side], _SIDE)
    return pooled


def pyramid(image: Tensor, level: int = 3) -> Tensor:
    """The sub-bands of an image in the place of its pixels: the last approximation in the corner, details around it.

    Args:
        image: (1, H, W), 0 to 1, with sides that divide by 2^level.
        level: Number of levels.

    Returns:
        (H, W), 0 to 1; of the details 0.5 is zero, and each level has its own scale.
    """
    levels = subbands(image, level)
    found: Tensor = levels[-1]["LL"] / 2**level
    for bands in reversed(levels):
        details = torch.stack([bands[name] for name in ("HL", "LH", "HH")])
        right, below, corner = (details / details.abs().flatten().quantile(0.99).clamp_min(1e-6) / 2 + 0.5).clamp(0, 1)
        found = torch.cat([torch.cat([found, right], 1), torch.cat([below, corner], 1)])
    return found


def draw_overview(
    image: Tensor,
    reaches: Mapping[str, int],
    examples: Sequence[Example],
    shown: Tensor,
    class_names: Sequence[str],
    model: str,
) -> Figure:
    """Three panels: the pyramid of an image, what one output sees of it through one block, and predictions.

    Args:
        image: (1, H, W), 0 to 1, with sides that divide by 8.
        reaches: Name of a model -> side of the square that it sees, in pixels of the image.
        examples: As many as fill a square.
        shown: Their images (N, C, H', W'), 0 to 1.
        class_names: In the order of the classes.
        model: Name of the model that predicts.
    """
    figure = new_figure(8.4, 3.2)
    panels: Any = figure.subfigures(1, 3)
    axes = _panel(panels[0], "A wavelet transform halves the image,\nlevel by level, and keeps its edges")
    show(axes, pyramid(image), cmap=_few_greys())
    axes = _panel(panels[1], "So one block sees far: the squares on\nwhich one output of it depends")
    show(axes, image[0], cmap=_few_greys())
    _draw_squares(axes, reaches)
    panels[2].suptitle(f"{model}\non images that it has not seen", fontsize=9)
    side = math.isqrt(len(examples))
    for axes, example, pixels in zip(panels[2].subplots(side, side).flat, examples, shown, strict=True):
        show(axes, pixels)
        color = "green" if example.right else "red"
        axes.set_title(class_names[example.predicted], fontsize=6, pad=2, color=color)
    return figure


def _panel(figure: SubFigure, title: str) -> Axes:
    figure.suptitle(title, fontsize=9)
    return figure.subplots()


def _draw_squares(axes: Axes, reaches: Mapping[str, int]) -> None:
    from matplotlib.patches import Rectangle

    columns, rows = axes.get_xlim()[1], axes.get_ylim()[0]
    for color, (name, side) in zip(_COLORS, reaches.items(), strict=True):
        corner, label = ((columns - side) / 2, (rows - side) / 2), f"{name}: {side} px"
        axes.add_patch(Rectangle(corner, side, side, fill=False, color=color, linewidth=1.8, label=label))
    axes.legend(fontsize=7, loc="lower left", framealpha=0.95)


def _few_greys() -> Colormap:
    from matplotlib import colormaps

    return colormaps["gray"].resampled(_GREYS)
