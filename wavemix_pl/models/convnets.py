"""Convolutional networks as small as the smallest WaveMix, to compare with: no library has any of this size."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavemix_pl.errors import InputError


class CNN(nn.Sequential):
    """3x3 convolutions of one width, batch norm, ReLU; the first two are followed by max pooling; mean, linear.

    Images (B, C, H, W) -> logits (B, K).

    Args:
        dim: Width.
        depth: Number of convolutions, at least two.
        num_classes: K.
        in_channels: Channels of the images.
        separable: Whether all but the first are depthwise, followed by 1x1 convolutions, as in MobileNet.

    Raises:
        InputError: Fewer than two convolutions.
    """

    def __init__(
        self, dim: int, depth: int, num_classes: int, *, in_channels: int = 3, separable: bool = False
    ) -> None:
        if depth < 2:
            raise InputError(f"a CNN has at least two convolutions, got {depth}")
        layers: list[nn.Module] = []
        for place in range(depth):
            if place == 0 or not separable:
                layers.append(_convolution(dim if place else in_channels, dim))
            else:
                layers.append(_convolution(dim, dim, groups=dim))
                layers.append(_convolution(dim, dim, kernel_size=1))
            if place < 2:
                layers.append(nn.MaxPool2d(2))
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(dim, num_classes))


class UNet(nn.Module):
    """U-Net (Ronneberger et al. 2015), padded, with batch norm. Images (B, C, H, W) -> logits (B, K, H, W).

    Args:
        dim: Width at the images' resolution; it doubles each time the resolution is halved.
        depth: How often that is.
        num_classes: K.
        in_channels: Channels of the images.
    """

    def __init__(self, dim: int, depth: int, num_classes: int, *, in_channels: int = 3) -> None:
        super().__init__()
        widths = [dim * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(map(_two, [in_channels, *widths[:-1]], widths))
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(2 * width, width, 2, stride=2) for width in widths[-2::-1])
        self.up = nn.ModuleList(_two(2 * width, width) for width in widths[-2::-1])
        self.head = nn.Conv2d(dim, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        multiple = 2 ** len(self.up)
        x = F.pad(images, (0, -width % multiple, 0, -height % multiple), mode="replicate")
        skipped: list[Tensor] = []
        for place, two in enumerate(self.down):
            x = two(F.max_pool2d(x, 2) if place else x)
            skipped.append(x)
        for enlarge, two, beside in zip(self.enlarge, self.up, skipped[-2::-1], strict=True):
            x = two(torch.cat([beside, enlarge(x)], dim=1))
        logits: Tensor = self.head(x)
        return logits[..., :height, :width]


def _convolution(before: int, after: int, **options: Any) -> nn.Module:
    """Convolution, batch norm, ReLU."""
    from torchvision.ops import Conv2dNormActivation  # takes a second, which is too long for counting parameters

    layers: nn.Module = Conv2dNormActivation(before, after, **options)
    return layers


def _two(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(_convolution(before, after), _convolution(after, after))
