"""The stem of a fused model: convolutions with nothing between them are one convolution."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from wavemix_pl.models.wavemix import PatchifyStem, StridedStem


def merge_stem(stem: StridedStem | PatchifyStem) -> nn.Module:
    """The stem with one convolution, or as it is where that would not pay."""
    merged = MergedStem(stem)
    return merged if merged.saved > 0.5 else deepcopy(stem)  # below, the borders cost what the rest gains


class MergedStem(nn.Module):
    """A stem whose convolutions are one.

    They pad their own inputs, which one convolution cannot know: where images end, the outermost row or column of
    outputs comes from the convolutions one by one.
    """

    def __init__(self, stem: StridedStem | PatchifyStem) -> None:
        super().__init__()
        self.reduction = stem.reduction
        layers = list(deepcopy(stem))
        convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
        self.convolutions = nn.Sequential(*convolutions)
        self.rest = nn.Sequential(*layers[len(convolutions) :])
        kernel, stride, padding = 1, 1, 0
        for convolution in convolutions:
            kernel += (convolution.kernel_size[0] - 1) * stride
            padding += int(convolution.padding[0]) * stride
            stride *= convolution.stride[0]

        def without_padding(patch: Tensor) -> Tensor:
            for convolution in convolutions:
                bias = None if convolution.bias is None else convolution.bias.double()
                patch = F.conv2d(patch, convolution.weight.double(), bias, convolution.stride)
            return patch

        channels = convolutions[0].in_channels
        empty = nn.Conv2d(channels, convolutions[-1].out_channels, kernel, stride, padding)
        self.merged = _as_convolution(without_padding, (channels, kernel, kernel), empty)
        self.near = kernel - padding  # pixels that the first output sees
        self.before_last = stride * math.ceil(padding / stride)  # pixels that the last one sees before its own
        self.kernel, self.stride = kernel, stride

    @property
    def saved(self) -> float:
        """Share of the products that the merged convolution does without, borders apart."""
        products, outputs = 0, 1
        for convolution in reversed(list(self.convolutions)):
            assert isinstance(convolution, nn.Conv2d)  # as it was made
            products += convolution.weight.numel() * outputs
            outputs *= convolution.stride[0] ** 2
        return 1 - self.merged.weight.numel() / products

    def forward(self, images: Tensor) -> Tensor:
        if min(images.shape[-2:]) < self.kernel:
            return cast(Tensor, self.rest(self.convolutions(images)))
        x: Tensor = self.merged(images)
        row, column = (max(0, self.stride * (side - 1) - self.before_last) for side in x.shape[-2:])
        x[..., :1, :] = self.convolutions(images[..., : self.near, :])[..., :1, :]
        x[..., -1:, :] = self.convolutions(images[..., row:, :])[..., -1:, :]
        x[..., :1] = self.convolutions(images[..., : self.near])[..., :1]
        x[..., -1:] = self.convolutions(images[..., column:])[..., -1:]
        return cast(Tensor, self.rest(x))


def _as_convolution(function: Callable[[Tensor], Tensor], shape: tuple[int, ...], empty: nn.Conv2d) -> nn.Conv2d:
    """An affine function of (B, C, k, k) -> (B, O, 1, 1) as the convolution that does it everywhere.

    Its bias is the answer to zeros, its kernel the answers to ones at each place.
    """
    answers = function(torch.cat((torch.zeros(1, *shape), torch.eye(math.prod(shape)).view(-1, *shape))).double())
    answers = answers.flatten(1)
    empty.bias = nn.Parameter(answers[0])
    empty.weight = nn.Parameter((answers[1:] - answers[0]).T.reshape(-1, *shape))
    return empty
