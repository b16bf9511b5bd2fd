"""Peers of WaveMix from the paper, on timm, and the choice between them and WaveMix by name."""

from __future__ import annotations

import difflib
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
        mixer: Any = _convmixer(
            dim=dim, depth=depth, kernel_size=kernel_size, patch_size=patch_size, in_chans=in_channels, num_classes=0
        )
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
    """WaveMix, or a peer, by the name that the paper gives it or timm does.

    Args:
        variant: "WaveMix-..." as in `create_model`; "ConvMixer-DIM/DEPTH"; for classification any model of timm, such
            as "resnet50".
        num_classes: K.
        task: Which head.
        overrides: Fields of `WaveMixConfig`, or further arguments of the peer.

    Raises:
        InputError: No such model, an argument that it does not have, or timm is not installed.
    """
    if re.match(r"\s*wavemix", variant, re.IGNORECASE):
        return create_model(variant, num_classes, task=task, **overrides)
    convmixer = _CONVMIXER.fullmatch(variant)
    if task == "segmentation":
        if not convmixer:
            raise InputError(f"model {variant!r}: known for segmentation are WaveMix-... and ConvMixer-DIM/DEPTH")
        known = ("in_channels", "kernel_size", "patch_size")
        for name in overrides:
            if name not in known:
                raise InputError(f"{name!r} is no argument of ConvMixer; known are {', '.join(known)}")
        return ConvMixerSegmenter(int(convmixer[1]), int(convmixer[2]), num_classes, **overrides)
    arguments = {"in_chans" if name == "in_channels" else name: value for name, value in overrides.items()}
    timm = _timm()
    try:
        if convmixer:
            return _convmixer(dim=int(convmixer[1]), depth=int(convmixer[2]), num_classes=num_classes, **arguments)
        model: nn.Module = timm.create_model(variant, num_classes=num_classes, **arguments)
    except TypeError as error:
        raise InputError(f"model {variant!r}: {error}") from error
    except RuntimeError as error:  # timm's for a name that it does not know
        near = difflib.get_close_matches(variant, timm.list_models(), n=1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        raise InputError(f"model {variant!r}: neither WaveMix-... nor ConvMixer-DIM/DEPTH nor timm's{hint}") from error
    return model


def _timm() -> Any:
    try:
        import timm
    except ImportError:
        raise InputError("models other than WaveMix come from timm: pip install 'wavemix_pl[baselines]'") from None
    return timm


def _convmixer(**arguments: Any) -> nn.Module:
    """Timm's ConvMixer. Kernel 7 and patches of 7 pixels are those of ConvMixer-512/12 in the paper of ConvMixer."""
    _timm()
    from timm.models.convmixer import ConvMixer

    model: nn.Module = ConvMixer(**{"kernel_size": 7, "patch_size": 7, **arguments})
    return model
