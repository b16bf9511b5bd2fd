"""A narrow WaveMix-Lite on cells: 2x2 pixels are four channels, from the first block to the last.

Up to GELU a block is linear in a cell, and its transposed convolution is a plain one of 3x3 cells: more products than
in pixels, but fewer operations, which is what counts where there are few channels. Channels are in the order of torch's
`pixel_unshuffle`: the four pixels of a channel side by side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavemix_pl.models.layout import keep_layout
from wavemix_pl.models.mixers import DWT, Deconv
from wavemix_pl.models.wavelets import HAAR, fold_haar

if TYPE_CHECKING:
    from wavemix_pl.models.wavemix import WaveMixBlock


_WIDEST = 8  # channels; with 16 the pixels' way is faster already


def fits_cells(block: WaveMixBlock) -> bool:
    """Whether the block is narrow, and one of WaveMix-Lite, on Haar and with a transposed convolution."""
    mixer = block.mixer
    lite = type(mixer) is DWT and mixer.level == 1 and mixer.wavelet in HAAR
    return lite and isinstance(block.paths[0].upsample, Deconv) and block.reduce.in_channels <= _WIDEST


def to_cells(x: Tensor) -> Tensor:
    """(B, D, H, W) with even sides -> (B, 4D, H/2, W/2)."""
    return F.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last)


def expand_in_cells(block: WaveMixBlock) -> tuple[Tensor, Tensor]:
    """Weight (O, 4D, 1, 1) and bias of what leads to GELU: `reduce`, Haar and `expand` as one convolution."""
    expand, reduce = block.paths[0].expand, block.reduce
    kernel = fold_haar(keep_layout(expand.weight))  # (O, D/4, 2, 2)
    with torch.autocast(kernel.device.type, enabled=False):  # weights are folded in their own precision
        weight = torch.einsum("orij,rd->odij", kernel, keep_layout(reduce.weight)[:, :, 0, 0]).flatten(1)
        bias = cast(Tensor, expand.bias) + kernel.sum((2, 3)) @ cast(Tensor, reduce.bias)
    return weight[:, :, None, None], bias


def enlarge_in_cells(weight: Tensor) -> Tensor:
    """Weight (4D, F, 3, 3) of the convolution of cells that equals a transposed convolution of weight (F, D, 4, 4)."""
    width = len(weight)
    impulses = F.pad(torch.eye(width, dtype=weight.dtype, device=weight.device)[:, :, None, None], (1, 1, 1, 1))
    answers = F.conv_transpose2d(impulses, weight, None, stride=2, padding=1)
    return F.pixel_unshuffle(answers, 2).flip(-2, -1).transpose(0, 1)


class CellNorm(torch.autograd.Function):
    """Batch norm in training mode, over the pixels of all cells. (B, 4D, H, W) -> (B, 4D, H, W).

    torch's own works on each of the 4D channels; what differs between the pixels of a cell is put right.
    """

    @staticmethod
    def forward(ctx: Any, cells: Tensor, weight: Tensor, bias: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        zeros, ones = weight.new_zeros(cells.shape[1]), weight.new_ones(cells.shape[1])
        found = torch.batch_norm_update_stats(cells, zeros, ones, 0.0)  # with these in the precision of the weights
        means, variances = (one.view(-1, 4) for one in found)
        mean = means.mean(1)
        variance = (variances + (means - mean[:, None]).square()).mean(1)
        count = cells.numel() // len(mean)
        cast(Tensor, norm.num_batches_tracked).add_(1)
        unbiased = variance * (count / (count - 1))
        for running, now in ((norm.running_mean, mean), (norm.running_var, unbiased)):
            cast(Tensor, running).lerp_(now.to(cast(Tensor, running)), cast(float, norm.momentum))
        mean, variance, weight, bias = (one.repeat_interleave(4) for one in (mean, variance, weight, bias))
        ctx.save_for_backward(cells, weight, mean, (variance + norm.eps).rsqrt())
        ctx.eps = norm.eps
        return F.batch_norm(cells, mean, variance, weight, bias, False, 0.0, norm.eps)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        cells, weight, mean, inverse_std = ctx.saved_tensors
        of_cells, of_weights, of_biases = torch.ops.aten.native_batch_norm_backward(
            *(gradient, cells, weight, None, None, mean, inverse_std, True, ctx.eps, [True, True, True])
        )
        of_weight, of_bias = of_weights.view(-1, 4).sum(1), of_biases.view(-1, 4).sum(1)
        # torch has taken off what a pixel's own gradients have on average; it should be what those of the cell have
        per_gradient = weight * inverse_std / (cells.numel() // len(weight))
        slope = (of_weights - of_weight.repeat_interleave(4) / 4) * per_gradient * inverse_std
        shift = (of_biases - of_bias.repeat_interleave(4) / 4) * per_gradient - slope * mean
        zeros, nearly_ones = torch.zeros_like(slope), torch.full_like(slope, 1 - ctx.eps)  # torch 2.11 refuses eps 0
        correction = F.batch_norm(cells, zeros, nearly_ones, slope, shift, False, 0.0, ctx.eps)  # rounded once, at last
        return of_cells.add_(correction), of_weight, of_bias, None
