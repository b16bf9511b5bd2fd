"""The networks whose receptive fields are compared (Fig. 2): the paper does not say which, nor of which size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from wavemix_pl.config import WaveMixConfig
from wavemix_pl.models.baselines import build_model
from wavemix_pl.models.wavemix import create_model

DEPTHS = (1, 2, 4, 8)
SIZE = (256, 256)  # of the images, in pixels: the middle is a corner of all cells of the wavelet pyramid


@dataclass(frozen=True)
class Network:
    """A network of the figure.

    Attributes:
        name: To print.
        build: Makes it, with weights of the global random generator.
        layers: Names of its modules behind which to look, in their order.
    """

    name: str
    build: Callable[[], nn.Module]
    layers: Sequence[str]


def networks(depths: Sequence[int] = DEPTHS, size: tuple[int, int] = SIZE) -> list[Network]:
    """WaveMix by levels, ResNet-18, ConvMixer and ViT, each behind so many of its blocks.

    Widths are small: with all weights one a receptive field does not depend on them. WaveMix has patches of 4 pixels,
    as for ImageNet, ResNet-18 is the one of its paper, ConvMixer has its paper's kernel 9 and patch 7, ViT patches of
    16.

    Raises:
        InputError: timm is not installed.
    """

    def wavemix(level: int) -> Network:
        config = WaveMixConfig(dim=16, depth=max(depths), level=level, stem="patchify", patch_size=4, dropout=0.0)
        name = f"WaveMix\n{level} levels" if level > 1 else "WaveMix-Lite\n1 level"
        return Network(name, lambda: create_model(config, 10), layers)

    def peer(name: str, variant: str, layers: Sequence[str], **arguments: object) -> Network:
        return Network(name, lambda: build_model(variant, 10, "classification", arguments), layers)

    layers = [f"blocks.{depth - 1}" for depth in depths]
    stages = [f"layer{1 + block // 2}.{block % 2}" for block in range(8)]
    vit = {"img_size": size, "embed_dim": 48, "num_heads": 3, "class_token": False, "global_pool": "avg"}
    deepest = max(depths)
    return [
        *(wavemix(level) for level in (1, 2, 3, 4)),
        peer("ResNet-18", "resnet18", [stages[depth - 1] for depth in depths], zero_init_last=False),
        peer("ConvMixer\nkernel 9, patch 7", f"ConvMixer-16/{deepest}", layers, kernel_size=9, patch_size=7),
        peer("ViT\npatch 16", "vit_tiny_patch16_224", layers, depth=deepest, **vit),
    ]
