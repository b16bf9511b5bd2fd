"""Occlusion analysis of a classifier (Fig. 5; Zeiler and Fergus 2014): what happens when a part of the image is hidden.

Paper: neither the size of the hidden part nor its color is told. Here: by default a seventh of each side, in steps of
half of it, in the mean color of the training images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wavemix_pl.errors import InputError
from wavemix_pl.pictures import new_figure, show

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_AT_ONCE = 64  # occluded images in a batch


@dataclass(frozen=True)
class Example:
    """An image that a classifier has seen.

    Attributes:
        image: (C, H, W), normalised.
        target: Its class.
        predicted: The class that the model gives it.
        probability: That the model gives to that class.
    """

    image: Tensor
    target: int
    predicted: int
    probability: float

    @property
    def right(self) -> bool:
        return self.target == self.predicted


@torch.no_grad()
def find_examples(
    model: Callable[[Tensor], Tensor], batches: Iterable[tuple[Tensor, Tensor]], right: int = 4, wrong: int = 4
) -> list[Example]:
    """The first images that are classified rightly, then the first wrongly; fewer where there are not as many.

    Args:
        model: Images (B, C, H, W) -> logits (B, K).
        batches: Of normalised images and their classes.
        right: So many at most.
        wrong: Likewise.
    """
    found: dict[bool, list[Example]] = {True: [], False: []}
    wanted = {True: right, False: wrong}
    for images, targets in batches:
        probabilities, predicted = model(images).softmax(1).max(1)
        for i, target in enumerate(targets.tolist()):
            example = Example(images[i], target, int(predicted[i]), float(probabilities[i]))
            if len(found[example.right]) < wanted[example.right]:
                found[example.right].append(example)
        if all(len(found[kind]) == wanted[kind] for kind in wanted):
            break
    return [*found[True], *found[False]]


@torch.no_grad()
def occlusion_map(
    model: Callable[[Tensor], Tensor],
    image: Tensor,
    label: int,
    window: tuple[int, int] | None = None,
    stride: tuple[int, int] | None = None,
    color: float = 0.0,
) -> Tensor:
    """The probability of a class when a pixel is hidden: the mean over all windows that hide it; by captum.

    Args:
        model: Images (B, C, H, W) -> logits (B, K), in evaluation mode.
        image: (C, H, W), normalised.
        label: The class.
        window: (rows, columns) of what is hidden at a time. Default: a seventh of each side.
        stride: From one window to the next. Default: half a window.
        color: What hides; in normalised images 0 is the mean color of the training images.

    Returns:
        (H, W).

    Raises:
        InputError: captum is not installed, or a window that is not within the image.
    """
    try:
        from captum.attr import Occlusion
    except ImportError:
        raise InputError("occlusion analysis needs captum: pip install 'wavemix_pl[figures]'") from None
    channels, *sides = image.shape
    window = window or (max(1, sides[0] // 7), max(1, sides[1] // 7))
    stride = stride or (max(1, window[0] // 2), max(1, window[1] // 2))
    if not all(0 < step <= extent <= side for step, extent, side in zip(stride, window, sides, strict=True)):
        size = "x".join(map(str, sides))
        raise InputError(
            f"window {window}, stride {stride}: a stride is at most a window, and a window the image {size}"
        )

    def probability(images: Tensor) -> Tensor:
        return model(images).softmax(1)[:, label]

    fall = Occlusion(probability).attribute(
        image[None],
        sliding_window_shapes=(channels, *window),
        strides=(channels, *stride),
        baselines=color,
        perturbations_per_eval=_AT_ONCE,
    )
    hidden: Tensor = probability(image[None]) - fall[0, 0]
    return hidden


def draw_occlusion(
    images: Tensor, maps: Sequence[Tensor], examples: Sequence[Example], class_names: Sequence[str]
) -> Figure:
    """Images, and under each the probability of its predicted class when a pixel is hidden: dark is what mattered.

    All maps have one scale, from 0 to 1, and below them the least and the largest probability.

    Args:
        images: (N, C, H, W), 0 to 1.
        maps: Of `occlusion_map`, of the predicted class.
        examples: Of the images.
        class_names: In the order of the classes.
    """
    count = len(examples)
    figure = new_figure(1.6 * count + 0.7, 4)
    figure.suptitle(
        "Probability of the predicted class when a pixel is hidden: dark is what the decision rests on", fontsize=9
    )
    grid = figure.subplots(2, count, squeeze=False)
    for i, example in enumerate(examples):
        show(grid[0, i], images[i])
        guess = f"{class_names[example.predicted]} {example.probability:.2f}"
        title = guess if example.right else f"{guess}\n(true: {class_names[example.target]})"
        grid[0, i].set_title(title, fontsize=8, color="green" if example.right else "red")
        show(grid[1, i], maps[i], cmap="gray", vmin=0, vmax=1)
        grid[1, i].set_axis_on()
        grid[1, i].set(xticks=[], yticks=[])
        grid[1, i].set_xlabel(f"{float(maps[i].min()):.2f} to {float(maps[i].max()):.2f}", fontsize=8)
    figure.colorbar(grid[1, 0].images[0], ax=grid[1, :], pad=0.01, aspect=12).ax.tick_params(labelsize=7)
    return figure
