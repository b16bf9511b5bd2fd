"""Peers of WaveMix from the paper, on timm, and the choice between them and WaveMix by name."""

from __future__ import annotations

import re
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from wavemix_pl.config import WaveMixConfig
from wavemix_pl.errors import InputError
from wavemix_pl.models.wavemix import SegmentationHead, create_model

_CONVMIXER = re.compile(r"\s*ConvMixer-(\d+)/(\d+)\s*", re.IGNORECASE)


class ConvMixerSegmenter(nn.Module):
    """ConvMixer with WaveMix's segmentation head (Section 4.3). Images (B, C, H, W) -> logits (B, K, H, W).

    Paper: neither kernel nor patch size is told for this row; here: kernel 7, and patches of 4 pixels, which the head
    enlarges back to the size of the images.

    Args:
        dim: Width, divisible by 4.
        depth: Number of ConvMixer blocks.
        num_classes: K.
        in_channels: Channels of the images.
        kernel_size: Of the depthwise convolutions.
        patch_size: Side of a patch in pixels.

    Raises:
        InputError: timm is not installed, or a width that has no quarter.
    """

    def __init__(
        self,
        dim: int,
        depth: int,
        num_classes: int,
        in_channels: int = 3,
        kernel_size: int = 7,
        patch_size: int = 4,
    ) -> None:
        super().__init__()
        try:
            from timm.models.convmixer import ConvMixer
        except ImportError:
            raise InputError("ConvMixer comes from timm: pip install 'wavemix_pl[baselines]'") from None
        mixer = ConvMixer(dim, depth, kernel_size, patch_size, in_chans=in_channels, num_classes=0)
        self.stem, self.blocks, self.patch_size = mixer.stem, mixer.blocks, patch_size
        self.head = SegmentationHead(WaveMixConfig(dim=dim, depth=depth), num_classes)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        padded = F.pad(images, (0, -width % self.patch_size, 0, -height % self.patch_size), mode="replicate")
        logits: Tensor = self.head(self.blocks(self.stem(padded)))
        if logits.shape[-2:] != padded.shape[-2:]:
            logits = F.interpolate(logits, size=padded.shape[-2:], mode="bilinear", align_corners=False)
        return logits[..., :height, :width]


def build_model(
    variant: str, num_classes: int, task: Literal["classification", "segmentation"], overrides: dict[str, Any]
) -> nn.Module:
    """WaveMix, or a peer, by the name that the paper gives it.

    Args:
        variant: "WaveMix-..." as in `create_model`, or, for segmentation, "ConvMixer-DIM/DEPTH".
        num_classes: K.
        task: Which head.
        overrides: Fields of `WaveMixConfig`, or further arguments of the peer.
    """
    peer = _CONVMIXER.fullmatch(variant)
    if not peer:
        return create_model(variant, num_classes, task=task, **overrides)
    if task != "segmentation":
        raise InputError(f"{variant!r} is here for segmentation only")
    known = ("in_channels", "kernel_size", "patch_size")
    for name in overrides:
        if name not in known:
            raise InputError(f"{name!r} is no argument of ConvMixer; known are {', '.join(known)}")
    return ConvMixerSegmenter(int(peer[1]), int(peer[2]), num_classes, **overrides)
