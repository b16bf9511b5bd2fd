"""A segmentation head whose last two layers are one: there is nothing between them.

Where there are few classes that takes fewer products, and does without the widest map of the whole model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from wavemix_pl.models.fast import conv_transpose
from wavemix_pl.models.layout import keep_layout

if TYPE_CHECKING:
    from wavemix_pl.models.wavemix import SegmentationHead


def merging_pays(head: SegmentationHead) -> bool:
    """Whether one layer takes fewer products than two, for each pixel of the logits."""
    second, last = _last_two(head)
    taps = 4  # of the transposed convolution's 16, those that reach a pixel
    apart = (second.in_channels * taps + last.out_channels) * second.out_channels
    return second.in_channels * taps * last.out_channels < apart


def merged_weights(head: SegmentationHead) -> tuple[Tensor, Tensor]:
    """Weight and bias of the transposed convolution that equals the last two layers, with gradients."""
    second, last = _last_two(head)
    weight, classes = keep_layout(second.weight), keep_layout(last.weight)[:, :, 0, 0]
    with torch.autocast(weight.device.type, enabled=False):  # weights are merged in their own precision
        merged = torch.einsum("iokl,qo->iqkl", weight, classes)
        bias = classes @ cast(Tensor, second.bias) + cast(Tensor, last.bias)
    return merged, bias


def run_merged_head(head: SegmentationHead, x: Tensor) -> Tensor:
    """What the head does, in training, merged if that pays."""
    (second, last), x = _last_two(head), conv_transpose(x, cast(nn.ConvTranspose2d, head[0]))
    if merging_pays(head):
        return conv_transpose(x, second, merged_weights(head))
    return cast(Tensor, last(conv_transpose(x, second)))


def _last_two(head: SegmentationHead) -> tuple[nn.ConvTranspose2d, nn.Conv2d]:
    return cast(nn.ConvTranspose2d, head[1]), cast(nn.Conv2d, head[2])
