"""Peers of WaveMix by timm, vit-pytorch and `convnets`, and the choice between them and WaveMix by name."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from collections.abc import Callable
from functools import partial
from math import ceil
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavemix_pl.config import WaveMixConfig
from wavemix_pl.errors import InputError
from wavemix_pl.models.convnets import CNN, UNet
from wavemix_pl.models.wavemix import SegmentationHead, create_model

Task = Literal["classification", "segmentation"]


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
        *,
        in_channels: int = 3,
        kernel_size: int = 7,
        patch_size: int = 4,
    ) -> None:
        super().__init__()
        mixer: Any = _convmixer(dim, depth, 0, in_channels=in_channels, kernel_size=kernel_size, patch_size=patch_size)
        self.stem, self.blocks, self.patch_size = mixer.stem, mixer.blocks, patch_size
        self.head = SegmentationHead(WaveMixConfig(dim=dim, depth=depth), num_classes)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        padded = F.pad(images, (0, -width % self.patch_size, 0, -height % self.patch_size), mode="replicate")
        logits: Tensor = self.head(self.blocks(self.stem(padded)))
        if logits.shape[-2:] != padded.shape[-2:]:
            logits = F.interpolate(logits, size=padded.shape[-2:], mode="bilinear", align_corners=False)
        return logits[..., :height, :width]


def build_model(variant: str, num_classes: int, task: Task, overrides: dict[str, Any]) -> nn.Module:
    """WaveMix, or a peer, by the name that the paper gives it or timm does.

    Args:
        variant: "WaveMix-..." as in `create_model`; "ConvMixer-512/12"; for segmentation "U-Net-16/3"; for
            classification "ViT-128/4x4", "CCT-128/4x4", "CvT-128/4x4", "MLP-Mixer-512/8", "CNN-16/4", or any model of
            timm, such as "resnet50".
        num_classes: K.
        task: Which head.
        overrides: Fields of `WaveMixConfig`, or further arguments of the peer. `in_channels` goes with every model;
            ViT, CCT and MLP-Mixer need `img_size`, the side of the images.

    Raises:
        InputError: No such model, an argument that it does not have or lacks, or a library is not installed.
    """
    if re.match(r"\s*wavemix", variant, re.IGNORECASE):
        return create_model(variant, num_classes, task=task, **overrides)
    for form, builder in _PEERS[task].items():
        pattern = re.sub("DIM|DEPTH|HEADS", r"(\\d+)", form.replace("xHEADS", "[x\u00d7]HEADS"))
        if match := re.fullmatch(pattern, variant.strip(), re.IGNORECASE):
            _check(variant, builder, overrides)
            make = partial(builder, *map(int, match.groups()), num_classes, **overrides)
            break
    else:
        if task == "segmentation":
            raise InputError(f"model {variant!r}: known for segmentation are {_forms(task)}")
        make = partial(_timm_model, variant, num_classes, **overrides)
    try:
        return make()
    except (AssertionError, RuntimeError, TypeError) as error:  # the libraries', for arguments
        raise InputError(f"model {variant!r}: {error}") from error


def _forms(task: Task) -> str:
    return ", ".join(["WaveMix-...", *_PEERS[task]])


def _check(variant: str, builder: Callable[..., nn.Module], overrides: dict[str, Any]) -> None:
    parameters = inspect.signature(builder).parameters.values()
    known = {parameter.name: parameter.default for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
    for name in overrides:
        if name not in known:
            raise InputError(f"{name!r} is no argument of {variant}; known are {', '.join(known)}")
    for name, default in known.items():
        if default is inspect.Parameter.empty and name not in overrides:
            raise InputError(f"{variant} needs {name}, the side of the images in pixels: overrides {{{name}: 32}}")


def _timm_model(variant: str, num_classes: int, **arguments: Any) -> nn.Module:
    timm = _library("timm")
    # A name may go on with the tag of its weights after a point, and begin with where it is from before a colon.
    if ":" not in variant and not timm.is_model(variant.partition(".")[0]):
        near = difflib.get_close_matches(variant, [*_PEERS["classification"], *timm.list_models()], n=1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        raise InputError(f"model {variant!r}: known are {_forms('classification')} and the models of timm{hint}")
    arguments = {"in_chans" if name == "in_channels" else name: value for name, value in arguments.items()}
    model: nn.Module = timm.create_model(variant, num_classes=num_classes, **arguments)
    return model


def _make(path: str, **arguments: Any) -> nn.Module:
    """A model of a library by the path of its class, such as "timm.models.convmixer.ConvMixer"."""
    module, _, name = path.rpartition(".")
    model: nn.Module = getattr(_library(module), name)(**arguments)
    return model


def _library(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        install = "models other than WaveMix come from timm and vit-pytorch: pip install 'wavemix_pl[baselines]'"
        raise InputError(f"{error}; {install}") from None


# The authors' classifiers: sizes and classes come from the name and the data, what follows the star from the overrides.
# What Table 11 leaves open is as in the published code of the authors' earlier paper [43]: 32x32 tokens, which images
# of 64x64 have with patches of 2 pixels or a stride of 2; there the 4x4 of a name are 4 blocks of 4 heads. Its counts
# are torchsummary's, which leave out positional embeddings and class tokens.


def _convmixer(
    dim: int, depth: int, num_classes: int, *, in_channels: int = 3, kernel_size: int = 8, patch_size: int = 7
) -> nn.Module:
    """ConvMixer with the one pair of kernel and patch that counts as many parameters as Table 10 prints."""
    sizes = {"dim": dim, "depth": depth, "kernel_size": kernel_size, "patch_size": patch_size}
    return _make("timm.models.convmixer.ConvMixer", in_chans=in_channels, num_classes=num_classes, **sizes)


def _mlp_mixer(
    dim: int, depth: int, num_classes: int, *, img_size: int, in_channels: int = 3, patch_size: int = 4
) -> nn.Module:
    """MLP-Mixer with hidden layers of half the width: 2.416 M parameters at patches of 4; Table 11 prints 2.41 M."""
    sizes = {"img_size": img_size, "patch_size": patch_size, "embed_dim": dim, "num_blocks": depth}
    images = {"in_chans": in_channels, "num_classes": num_classes}
    return _make("timm.models.mlp_mixer.MlpMixer", mlp_ratio=(0.5, 0.5), **sizes, **images)


def _vit(
    dim: int, depth: int, heads: int, num_classes: int, *, img_size: int, in_channels: int = 3, patch_size: int = 1
) -> nn.Module:
    images = {"img_size": img_size, "patch_size": patch_size, "in_chans": in_channels, "num_classes": num_classes}
    blocks = {"embed_dim": dim, "depth": depth, "num_heads": heads, "mlp_ratio": 2, "qkv_bias": False}
    return _make("timm.models.vision_transformer.VisionTransformer", proj_drop_rate=0.25, **images, **blocks)


def _cct(
    dim: int, depth: int, heads: int, num_classes: int, *, img_size: int, in_channels: int = 3, stride: int = 1
) -> nn.Module:
    """CCT of three convolutions, the first of them with a stride, which the library would give to all."""
    images = {"img_size": ceil(img_size / stride), "n_input_channels": in_channels, "num_classes": num_classes}
    convolutions = {"n_conv_layers": 3, "kernel_size": 3, "stride": 1, "padding": 1, "pooling_stride": 1}
    blocks = {"embedding_dim": dim, "num_layers": depth, "num_heads": heads, "mlp_ratio": 4}
    with torch.device("cpu"):  # while it builds, the library reads numbers, which the meta device does not have
        model = _make("vit_pytorch.cct.CCT", positional_embedding="learnable", **images, **convolutions, **blocks)
    first: Any = model.get_submodule("tokenizer.conv_layers.0.0")
    first.stride = (stride, stride)
    return model


def _cvt(dim: int, depth: int, heads: int, num_classes: int, *, in_channels: int = 3, stride: int = 1) -> nn.Module:
    """CvT of three stages, the first of them with a stride; one block, one block, and the others."""
    if depth < 3:
        raise InputError(f"CvT has three stages and at least as many blocks, got {depth}")
    each = {"emb_dim": dim, "emb_kernel": 3, "proj_kernel": 3, "kv_proj_stride": 1, "heads": heads, "mlp_mult": 2}
    stages = {f"s{stage}_{name}": size for stage in (1, 2, 3) for name, size in each.items()}
    stages |= {"s1_depth": 1, "s2_depth": 1, "s3_depth": depth - 2}
    stages |= {"s1_emb_stride": stride, "s2_emb_stride": 1, "s3_emb_stride": 1}
    return _make("vit_pytorch.cvt.CvT", channels=in_channels, num_classes=num_classes, **stages)


_PEERS: dict[Task, dict[str, Callable[..., nn.Module]]] = {
    "classification": {
        "ConvMixer-DIM/DEPTH": _convmixer,
        "MLP-Mixer-DIM/DEPTH": _mlp_mixer,
        "ViT-DIM/DEPTHxHEADS": _vit,
        "CCT-DIM/DEPTHxHEADS": _cct,
        "CvT-DIM/DEPTHxHEADS": _cvt,
        "CNN-DIM/DEPTH": CNN,
    },
    "segmentation": {"ConvMixer-DIM/DEPTH": ConvMixerSegmenter, "U-Net-DIM/DEPTH": UNet},
}
