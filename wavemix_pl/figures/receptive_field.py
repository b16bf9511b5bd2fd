"""Receptive fields of networks, block by block (Fig. 2): where one high pixel gets to, and what one output looks at.

Paper (caption): a blank image with a single high pixel near the center, all parameters one, all biases zero; "rapid
expansion of the receptive field as we add layers or blocks". It leaves open how high the pixel is, and what
normalisation does. Here: see `unit_copy`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from wavemix_pl.figures.network import DEPTHS, SIZE, Network
from wavemix_pl.pictures import new_figure, show

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HIGH = 255.0
_ADDED = ("bias", "pos_embed", "cls_token")  # parameters that are added to a map, as a bias is
_NORMS = (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)
_FAINT = 1e-4  # of the largest value: what is less, but not 0, is drawn in the same color
_COLORS, _DRAWN = 32, 128  # in so many colors, and pixels along a side: a sixth of the file that all of them would make


def unit_copy(model: nn.Module) -> nn.Module:
    """A copy with all weights one and all biases zero, in float64 and evaluation mode.

    Position embeddings are added as biases are, and are zero too. Normalisation layers become the identity: batch norm
    in evaluation, weight one, bias zero and fresh statistics is just that, and layer norm would take away what all
    channels have in common, which is everything where all weights are one. GELU and ReLU pass what is large and
    positive. With all weights one the sum of a pixel's four Haar sub-bands is twice the upper left pixel of its cell,
    the others cancel: so the pattern depends on the place of the pixel, and the size of the field is best read off
    `gradient_fields`.
    """
    unit = copy.deepcopy(model).double().eval()
    for module in list(unit.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, _NORMS):
                setattr(module, name, nn.Identity())
        for name, parameter in module.named_parameters(recurse=False):
            nn.init.constant_(parameter, 0.0 if name in _ADDED else 1.0)
    return unit


@torch.no_grad()
def impulse_responses(
    model: nn.Module,
    layers: Sequence[str],
    size: tuple[int, int],
    pixel: tuple[int, int] | None = None,
    channels: int = 3,
) -> list[Tensor]:
    """What a blank image with a single high pixel becomes behind each layer of a model as it is, for `unit_copy`.

    Args:
        model: Images (1, C, H, W) -> anything.
        layers: Names of modules that return (1, D, H', W') or, as a transformer does, (1, H' * W', D).
        size: (H, W).
        pixel: The place of the high one. Default: the middle.
        channels: C; the pixel is high in all of them.

    Returns:
        For each layer (H', W') float64, the mean over channels, scaled to a largest value of one.
    """
    image = torch.zeros(1, channels, *size, dtype=torch.float64)
    row, column = pixel or (size[0] // 2, size[1] // 2)
    image[..., row, column] = _HIGH
    maps = [output[0].abs().mean(0) for output in layer_maps(model, layers, image)]
    return [found / found.max().clamp_min(torch.finfo(found.dtype).tiny) for found in maps]


def gradient_fields(model: nn.Module, layers: Sequence[str], images: Tensor) -> list[Tensor]:
    """The effective receptive field (Luo et al. 2016) of the output in the middle, behind each layer.

    The gradient of the channels' sum in the middle of a map with respect to the images; its absolute value, summed over
    the images' channels and averaged over the images. Where it is not zero lies the receptive field; how large it is
    tells how much of the field is used.

    Args:
        model: In evaluation mode, as batch norm would else let all pixels of a batch take part.
        layers: As in `impulse_responses`.
        images: (B, C, H, W).

    Returns:
        For each layer (H, W), scaled to a largest value of one.
    """
    images = images.detach().clone().requires_grad_()
    fields = []
    for output in layer_maps(model, layers, images):
        middle = output[..., output.shape[-2] // 2, output.shape[-1] // 2].sum()
        (gradient,) = torch.autograd.grad(middle, images, retain_graph=True)
        field = gradient.abs().sum(1).mean(0)
        fields.append(field / field.max().clamp_min(torch.finfo(field.dtype).tiny))
    return fields


def random_gradient_fields(
    network: Network, size: tuple[int, int] = SIZE, draws: int = 2, images: int = 1, seed: int = 0
) -> list[Tensor]:
    """`gradient_fields` of new networks with random weights, on random images, averaged over draws of both.

    Batch norm has the statistics of the images, as after training it has those of the data.
    """
    total: list[Tensor] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(draws):
            model, noise = network.build(), torch.randn(images, 3, *size)
            settle_statistics(model, noise)
            fields = gradient_fields(model, network.layers, noise)
            total = [a + b for a, b in zip(total, fields, strict=True)] if total else fields
    return [field / field.max() for field in total]


@torch.no_grad()
def settle_statistics(model: nn.Module, images: Tensor) -> None:
    """Gives batch norms the statistics of some images, and leaves the model in evaluation mode."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    model(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


def layer_maps(model: nn.Module, layers: Sequence[str], images: Tensor) -> list[Tensor]:
    """What comes out of the named modules, (B, D, H', W') each; tokens of a transformer as the square that they are."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        return lambda module, inputs, output: found.__setitem__(name, output)

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in layers]
    try:
        model(images)
    finally:
        for handle in handles:
            handle.remove()
    return [_as_map(found[name]) for name in layers]


def _as_map(output: Tensor) -> Tensor:
    if output.ndim == 4:
        return output
    batch, tokens, width = output.shape
    return output.transpose(1, 2).reshape(batch, width, math.isqrt(tokens), -1)


def reach(field: Tensor) -> tuple[int, int]:
    """(rows, columns) of the smallest rectangle around all that is not zero of a map (H, W)."""
    rows, columns = (field.ne(0).any(dim).nonzero().flatten() for dim in (1, 0))
    return (int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1) if len(rows) else (0, 0)


def side_of_share(field: Tensor, share: float = 0.95) -> int:
    """The side of a square of as many pixels as it takes, the largest first, to hold a share of a map's sum."""
    values = field.double().flatten().sort(descending=True).values.cumsum(0)
    return math.ceil(math.sqrt(int((values < share * values[-1]).sum()) + 1))


def draw_receptive_fields(
    names: Sequence[str],
    impulses: Sequence[Sequence[Tensor]],
    gradients: Sequence[Sequence[Tensor]],
    depths: Sequence[int] = DEPTHS,
) -> Figure:
    """One row for a network: left the impulse's responses, right the gradients, behind so many blocks each.

    Args:
        names: Of the networks.
        impulses: Of `impulse_responses`, for each network.
        gradients: Of `gradient_fields`, likewise.
        depths: Numbers of blocks, in the order of the maps.
    """
    size = (gradients[0][0].shape[0], gradients[0][0].shape[1])
    count = len(depths)
    figure = new_figure(1.2 * (2 * count + 1), 1.4 * len(names) + 1.3)
    figure.suptitle(
        "Left: one high pixel in, all weights one (Fig. 2).  Right: gradient of the middle output, random weights.",
        fontsize=10,
    )
    grid = figure.subplots(len(names), 2 * count + 1, squeeze=False, width_ratios=[1] * count + [0.15] + [1] * count)
    for i, name in enumerate(names):
        grid[i, count].set_axis_off()
        for j, depth in enumerate(depths):
            gradient = gradients[i][j]
            _draw_field(grid[i, j], impulses[i][j], size)
            _draw_field(grid[i, count + 1 + j], gradient, size, f", 95% in {side_of_share(gradient)}")
            if i == 0:
                for axes in (grid[i, j], grid[i, count + 1 + j]):
                    axes.set_title(f"{depth} block{'s' if depth > 1 else ''}", fontsize=9)
        grid[i, 0].set_ylabel(name, fontsize=8)
    bar = figure.colorbar(grid[0, 0].images[0], ax=grid, location="bottom", shrink=0.4, aspect=50, pad=0.01)
    bar.set_label("share of the largest value; white is zero", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure


def _draw_field(axes: Axes, field: Tensor, size: tuple[int, int], more: str = "") -> None:
    """A map (H', W') in the pixels of its images (H, W), and below it how far it reaches."""
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm

    factor = size[0] // field.shape[0]
    bounds = (0, factor * field.shape[1], factor * field.shape[0], 0)
    means = nn.functional.avg_pool2d(field[None], math.ceil(max(field.shape) / _DRAWN), ceil_mode=True)[0]
    shown = means.where(means > 0, torch.nan).float()
    show(axes, shown, cmap=colormaps["viridis"].resampled(_COLORS), norm=LogNorm(_FAINT, 1, clip=True), extent=bounds)
    axes.set_axis_on()
    axes.set(xticks=[], yticks=[], xlim=(0, size[1]), ylim=(size[0], 0))
    rows, columns = (factor * side for side in reach(field))
    extent = f"{rows} px" if rows == columns else f"{rows} x {columns} px"
    axes.set_xlabel(extent + more, fontsize=7, labelpad=2)
