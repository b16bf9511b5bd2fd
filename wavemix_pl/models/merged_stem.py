"""Stems whose convolutions are one: there is nothing between them.

They pad their own inputs, which one convolution cannot know. So where an image ends, the outermost row or column of
outputs comes from the convolutions one by one.
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from wavemix_pl.models.wavemix import PatchifyStem, StridedStem

    Stem: TypeAlias = StridedStem | PatchifyStem


@dataclass(frozen=True)
class Merging:
    """How a stem's convolutions, which are its first layers, merge.

    Attributes:
        convolutions: The convolutions.
        rest: The layers behind them.
        kernel: Side of the merged convolution's kernel.
        stride: Its stride.
        padding: Its padding.
    """

    convolutions: list[nn.Conv2d]
    rest: list[nn.Module]
    kernel: int
    stride: int
    padding: int

    @classmethod
    def of(cls, stem: Stem) -> Merging:
        """Reads it off the layers."""
        layers = list(stem)
        convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
        kernel, stride, padding = 1, 1, 0
        for convolution in convolutions:
            kernel += (convolution.kernel_size[0] - 1) * stride
            padding += int(convolution.padding[0]) * stride
            stride *= convolution.stride[0]
        return cls(convolutions, layers[len(convolutions) :], kernel, stride, padding)

    def pays(self, height: int, width: int) -> bool:
        """Whether it saves a quarter of the products, borders included; fewer are not worth the more operations."""
        products, outputs = 0, 1
        for convolution in reversed(self.convolutions):
            products += convolution.weight.numel() * outputs
            outputs *= convolution.stride[0] ** 2
        merged = self.convolutions[-1].out_channels * self.convolutions[0].in_channels * self.kernel**2
        at_borders = 2 * self.kernel * (1 / height + 1 / width)
        return min(height, width) >= self.kernel and merged / products + at_borders < 0.75

    def weights(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the merged convolution, with gradients.

        The bias is what the convolutions without padding answer to zeros; the kernel, to ones at each place.
        """
        first = self.convolutions[0].weight
        shape = (first.shape[1], self.kernel, self.kernel)
        ones = torch.eye(math.prod(shape), dtype=first.dtype, device=first.device).view(-1, *shape)
        with torch.autocast(first.device.type, enabled=False):  # weights are merged in their own precision
            answers = torch.cat((torch.zeros_like(ones[:1]), ones))
            for convolution in self.convolutions:
                answers = F.conv2d(answers, convolution.weight, convolution.bias, convolution.stride)
        bias = answers[0, :, 0, 0]
        return (answers[1:, :, 0, 0] - bias).T.reshape(-1, *shape), bias

    def run(self, images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """The stem's outputs, of images of at least the kernel's size."""
        x = F.conv2d(images, weight, bias, self.stride, self.padding)
        near = self.kernel - self.padding  # pixels that the first output sees
        before_last = self.stride * math.ceil(self.padding / self.stride)  # that the last one sees before its own
        row, column = (max(0, self.stride * (side - 1) - before_last) for side in x.shape[-2:])
        x[..., :1, :] = self._one_by_one(images[..., :near, :])[..., :1, :]
        x[..., -1:, :] = self._one_by_one(images[..., row:, :])[..., -1:, :]
        x[..., :1] = self._one_by_one(images[..., :near])[..., :1]
        x[..., -1:] = self._one_by_one(images[..., column:])[..., -1:]
        for layer in self.rest:
            x = layer(x)
        return x

    def _one_by_one(self, x: Tensor) -> Tensor:
        for convolution in self.convolutions:
            x = convolution(x)
        return x


def run_merged(stem: Stem, images: Tensor) -> Tensor:
    """What the stem does, in training, merged if that pays."""
    merging = Merging.of(stem)
    out: Tensor = merging.run(images, *merging.weights()) if merging.pays(*images.shape[-2:]) else stem(images)
    return out


class MergedStem(nn.Module):
    """A stem for inference: its weights are merged once and for all, and used where that pays."""

    def __init__(self, stem: Stem) -> None:
        super().__init__()
        self.stem, self.reduction = deepcopy(stem), stem.reduction
        self.weight, self.bias = (nn.Parameter(one) for one in Merging.of(deepcopy(stem).double()).weights())

    def forward(self, images: Tensor) -> Tensor:
        merging = Merging.of(self.stem)
        pays = merging.pays(*images.shape[-2:])
        out: Tensor = merging.run(images, self.weight, self.bias) if pays else self.stem(images)
        return out
