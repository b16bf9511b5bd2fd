"""Blocks in training in fewer and larger operations, of which less is kept for the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavemix_pl.models.cells import CellNorm, enlarge_in_cells, expand_in_cells, fits_cells, to_cells
from wavemix_pl.models.layout import keep_layout
from wavemix_pl.models.mixers import DWT, Deconv
from wavemix_pl.models.wavelets import HAAR, crop, even, fold_haar

if TYPE_CHECKING:
    from wavemix_pl.models.wavemix import LevelPath, WaveMixBlock

_DROPPED = -256.0  # GELU and its derivative are exactly 0 here and below, in every precision


def run_fast(blocks: Sequence[WaveMixBlock], x: Tensor) -> Tensor:
    """The blocks with Haar folded, and without what GELU and dropout would save; narrow ones on cells."""
    if not _suits_cells(blocks, x):
        for block in blocks:
            x = _fast(block, x)
        return x
    cells = to_cells(x)
    for block in blocks:
        cells = _fast_in_cells(block, cells)
    return F.pixel_shuffle(cells, 2)


def _fast(block: WaveMixBlock, x: Tensor) -> Tensor:
    out = mix(block, x, lambda path, projected: path.norm(enlarge(path, projected)))
    return out.add_(x) if out.shape == x.shape and out.dtype == x.dtype else crop(out, x) + x


def _suits_cells(blocks: Sequence[WaveMixBlock], x: Tensor) -> bool:
    norms = [path.norm for block in blocks for path in block.paths]
    return (
        x.shape[-2] % 2 == x.shape[-1] % 2 == 0
        and all(fits_cells(block) for block in blocks)
        and all(type(norm) is nn.BatchNorm2d and norm.training and x.device.type == "cpu" for norm in norms)
    )


def _fast_in_cells(block: WaveMixBlock, cells: Tensor) -> Tensor:
    path, upsample = block.paths[0], cast(Deconv, block.paths[0].upsample)
    projected = project(path, F.conv2d(cells, *expand_in_cells(block)))
    bias = cast(Tensor, upsample.bias).repeat_interleave(4)
    large = F.conv2d(projected, enlarge_in_cells(keep_layout(upsample.weight)), bias, padding=1)
    out: Tensor = CellNorm.apply(large, path.norm.weight, path.norm.bias, path.norm)
    return out.add_(cells) if out.dtype == cells.dtype else out + cells


def mix(block: WaveMixBlock, x: Tensor, enlarge: Callable[[LevelPath, Tensor], Tensor]) -> Tensor:
    """Equations 1 to 4 with `enlarge` in the place of upsampling and batch norm; not cropped yet."""
    reduced = block.reduce(x)
    folded = type(block.mixer) is DWT and block.mixer.wavelet in HAAR
    if folded:
        inputs = [even(reduced)]
        for _ in range(1, block.mixer.level):
            inputs.append(even(2 * F.avg_pool2d(inputs[-1], 2)))
    else:
        inputs = block.mixer(reduced)
    out = None
    for level_input, path in zip(reversed(inputs), reversed(block.paths), strict=True):
        weight, bias = keep_layout(path.expand.weight), path.expand.bias
        coarser = 0 if out is None else out.shape[1]
        own, others = weight.split([weight.shape[1] - coarser, coarser], dim=1)
        hidden = F.conv2d(level_input, fold_haar(own) if folded else own, bias, stride=2 if folded else 1)
        if out is not None:
            hidden += F.conv2d(crop(out, hidden), others)
        out = enlarge(path, project(path, hidden))
    assert out is not None  # a block has at least one level
    return out


def enlarge(path: LevelPath, projected: Tensor) -> Tensor:
    """The upsampling of a path."""
    upsample = path.upsample
    return conv_transpose(projected, upsample) if isinstance(upsample, nn.ConvTranspose2d) else upsample(projected)


def project(path: LevelPath, hidden: Tensor) -> Tensor:
    """GELU, dropout and the second convolution of the MLP. Changes `hidden`."""
    p = path.drop.p if path.drop.training else 0.0
    if p:
        hidden = hidden.add_(_dropped(hidden, p))
    projected: Tensor = _GeluConv.apply(hidden, path.project.weight, path.project.bias, 1 / (1 - p))
    return projected


def _dropped(like: Tensor, p: float) -> Tensor:
    """0 where dropout of probability p keeps, at most -256 where it drops.

    On a CPU torch draws one random number for an element, which takes longer than the convolutions around it. Here one
    number of 64 bits serves 64 elements, or four if p is not a half, which is then exact to 2^-17.
    """
    if like.device.type != "cpu":
        return torch.empty_like(like).bernoulli_(p).mul_(_DROPPED)
    count = like.numel()
    numbers = torch.empty(-(-count // (64 if p == 0.5 else 4)), dtype=torch.int64).random_(-(2**63), None)
    if p == 0.5:
        each_bit = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8)
        dropped = (numbers.view(torch.uint8)[:, None] & each_bit).flatten()[:count]
    else:
        dropped = numbers.view(torch.int16)[:count] < round(p * 2**16) - 2**15
    batch, channels, height, width = like.shape
    return dropped.to(like.dtype).mul_(_DROPPED).view(batch, height, width, channels).permute(0, 3, 1, 2)


class _GeluConv(torch.autograd.Function):
    """GELU, then a 1x1 convolution whose input is scaled. Keeps the input of GELU only, and computes GELU twice."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        ctx.scale = scale
        return F.conv2d(F.gelu(hidden), weight if scale == 1 else weight * scale, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        hidden, weight = ctx.saved_tensors
        scaled = weight if ctx.scale == 1 else weight * ctx.scale
        of_gelu, of_weight, of_bias = convolution_backward(gradient, F.gelu(hidden), scaled)
        of_weight = of_weight if ctx.scale == 1 else of_weight * ctx.scale
        return torch.ops.aten.gelu_backward(of_gelu, hidden), of_weight, of_bias, None


def conv_transpose(x: Tensor, layer: nn.ConvTranspose2d, weights: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """What the layer does, with its own weight and bias or with others."""
    out: Tensor = _ConvTranspose.apply(x, *(weights or (layer.weight, layer.bias)), layer)
    return out


class _ConvTranspose(torch.autograd.Function):
    """A transposed convolution whose backward pass is faster on a CPU, see `convolution_backward`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, layer: nn.ConvTranspose2d) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.layer = layer
        stride, padding = cast("tuple[list[int], list[int]]", (layer.stride, layer.padding))
        return F.conv_transpose2d(x, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        return *convolution_backward(gradient, x, weight, ctx.layer), None


def convolution_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, transposed: nn.ConvTranspose2d | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias of a 1x1 convolution, or of a transposed one."""
    gradient, weight_like_x = gradient.to(x.dtype), weight.to(x.dtype)
    stride, padding = (transposed.stride, transposed.padding) if transposed else ((1, 1), (0, 0))
    channels = weight.shape[1 if transposed else 0]
    with_bias = transposed is None  # for a transposed one a CPU takes up to a third of the whole time for it
    of_x, of_weight, of_bias = torch.ops.aten.convolution_backward(
        *(gradient, x, weight_like_x, [channels], stride, padding),
        *([1, 1], transposed is not None, [0, 0], 1, [True, True, with_bias]),
    )
    of_bias = of_bias if with_bias else gradient.sum((0, 2, 3))
    return of_x, of_weight.to(weight.dtype), of_bias.to(weight.dtype)
