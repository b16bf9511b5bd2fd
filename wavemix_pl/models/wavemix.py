"""WaveMix: the whole architecture, bottom-up, in the order of the paper's Section 3.

The paper's symbols and the words used here:

    C dim   N depth   L level   ff   mul mult   c reduce   x_0 reduced   w mixer   x_l subbands
    m expand, project (the MLP)   t upsample   b norm

Letters in shapes: B images, C channels, H rows, W columns, D = dim, K classes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavemix_pl.config import WaveMixConfig
from wavemix_pl.errors import InputError
from wavemix_pl.models.execution import Execution, run_blocks, run_head, run_stem
from wavemix_pl.models.fused import FusedClassifier, fuse_classifier, fuse_segmenter
from wavemix_pl.models.hub import HubModel
from wavemix_pl.models.mixers import MIXERS, UPSAMPLERS, Bilinear, Deconv, InverseDWT
from wavemix_pl.models.wavelets import crop


class StridedStem(nn.Sequential):
    """Initial convolutions for small images and for segmentation (Section 4.2); no activation between them."""

    def __init__(self, config: WaveMixConfig) -> None:
        dim, stride = config.dim, config.stride
        super().__init__(
            nn.Conv2d(config.in_channels, dim // 2, 3, stride, padding=1),
            nn.Conv2d(dim // 2, dim, 3, stride, padding=1),
        )
        self.reduction = stride * stride


class PatchifyStem(nn.Sequential):
    """Initial convolutions for large images (Appendix C.3). What lies beyond the last whole patch is not seen."""

    def __init__(self, config: WaveMixConfig) -> None:
        dim, patch = config.dim, config.patch_size
        super().__init__(
            nn.Conv2d(config.in_channels, dim // 4, 3, padding=1),
            nn.Conv2d(dim // 4, dim // 2, 3, padding=1),
            nn.Conv2d(dim // 2, dim, patch, stride=patch),
            nn.GELU(),
            nn.BatchNorm2d(dim),
        )
        self.reduction = patch

    def forward(self, images: Tensor) -> Tensor:
        if min(images.shape[-2:]) < self.reduction:
            size = "x".join(map(str, images.shape[-2:]))
            raise InputError(f"image {size} is smaller than a patch of {self.reduction} pixels: lower patch_size")
        for layer in self:
            images = layer(images)
        return images


class LevelPath(nn.Sequential):
    """What happens to the sub-bands of one level (Eq. 4): MLP, upsampling, batch norm."""

    expand: nn.Conv2d
    drop: nn.Dropout
    project: nn.Conv2d
    upsample: Deconv | Bilinear | InverseDWT
    norm: nn.BatchNorm2d

    def __init__(self, config: WaveMixConfig, in_channels: int, out_channels: int, factor: int) -> None:
        hidden = config.dim * config.mult
        upsampler = UPSAMPLERS[config.upsample]
        width = upsampler.input_width(config.ff, out_channels)
        super().__init__(
            OrderedDict(
                expand=nn.Conv2d(in_channels, hidden, 1),
                act=nn.GELU(),
                drop=nn.Dropout(config.dropout),
                project=nn.Conv2d(hidden, width, 1),
                upsample=upsampler(width, out_channels, factor),
                norm=nn.BatchNorm2d(out_channels),
            )
        )


class WaveMixBlock(nn.Module):
    """The WaveMix block (Fig. 1c; Eq. 1-5) for any number of levels; with one level, WaveMix-Lite (Fig. 3).

    Takes and returns (B, D, H, W) for any H and W: a level that meets an odd side repeats its last row or column, and
    what comes back up is cropped to the size that went down.
    """

    def __init__(self, config: WaveMixConfig) -> None:
        super().__init__()
        dim, mixer = config.dim, MIXERS[config.mixer]
        reduced = dim // mixer.expansion  # so that the joined sub-bands have as many channels as x (Section 3.2)
        self.reduce = nn.Conv2d(dim, reduced, 1)
        self.mixer = mixer(reduced, config.level, config.wavelet)
        coarsest = len(self.mixer.factors) - 1
        paths = (
            LevelPath(
                config,
                in_channels=dim if i == coarsest else dim + dim // 2,
                out_channels=dim if i == 0 else dim // 2,
                factor=factor,
            )
            for i, factor in enumerate(self.mixer.factors)
        )
        self.paths = cast("list[LevelPath]", nn.ModuleList(paths))

    def forward(self, x: Tensor) -> Tensor:
        subbands = self.mixer(self.reduce(x))  # Eq. 1, 2: finest first
        out = self.paths[-1](subbands[-1])  # Eq. 4 at the coarsest level
        for finer, path in zip(subbands[-2::-1], self.paths[-2::-1], strict=True):
            out = path(torch.cat((finer, crop(out, finer)), dim=1))  # Eq. 3, 4
        return crop(out, x) + x  # Eq. 5


class WaveMix(nn.Module):
    """The backbone that every task shares: stem and blocks (Section 3.1).

    Attributes:
        config: What it was built from.
        execution: How its parts run in training; none changes the numbers, see `wavemix_pl.models.execution`.
    """

    execution: Execution = "plain"

    def __init__(self, config: WaveMixConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = StridedStem(config) if config.stem == "strided" else PatchifyStem(config)
        self.blocks = nn.Sequential(*(WaveMixBlock(config) for _ in range(config.depth)))

    def forward_features(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D, H', W'), where H' and W' are what the stem leaves of H and W."""
        return run_blocks(self.blocks, run_stem(self.stem, images, self.execution), self.execution)

    def forward_intermediates(self, images: Tensor, indices: Sequence[int] | None = None) -> list[Tensor]:
        """What comes out of chosen blocks, (B, D, H', W') each, in the order in which they are named.

        Args:
            images: (B, C, H, W).
            indices: Of the blocks, from 0, or from -1 for the last; None for all. Blocks behind them do not run.

        Raises:
            InputError: An index that no block has.
        """
        chosen = self._from_0(indices)
        x, start, outputs = run_stem(self.stem, images, self.execution), 0, {}
        for last in sorted(set(chosen)):
            part = self.blocks[start : last + 1]
            part.training = self.blocks.training  # a slice is a new module, and would be in training
            x = outputs[last] = run_blocks(part, x, self.execution)
            start = last + 1
        return [outputs[index] for index in chosen]

    def _from_0(self, indices: Sequence[int] | None) -> list[int]:
        """Indices of blocks, none of them negative."""
        depth = len(self.blocks)
        indices = range(depth) if indices is None else indices
        for index in indices:
            if not -depth <= index < depth:
                raise InputError(f"block {index}: {depth} blocks have the indices 0 to {depth - 1}, or -{depth} to -1")
        return [index % depth for index in indices]


class GlobalMean(nn.Module):
    """Mean over space. Not AdaptiveAvgPool2d, whose backward is not deterministic on CUDA."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class ClassificationHead(nn.Sequential):
    """Optional 1x1 channel mixing, mean over space, linear (Section 3.1). (B, D, H', W') -> (B, K)."""

    mix: nn.Conv2d | nn.Identity
    pool: nn.Module
    linear: nn.Linear

    def __init__(self, config: WaveMixConfig, num_classes: int) -> None:
        width = config.head_dim or config.dim
        mix = nn.Conv2d(config.dim, width, 1) if config.head_dim else nn.Identity()
        super().__init__(OrderedDict(mix=mix, pool=GlobalMean(), linear=nn.Linear(width, num_classes)))


class SegmentationHead(nn.Sequential):
    """Two transposed convolutions and a 1x1 convolution (Section 4.3). (B, D, H', W') -> (B, K, 4H', 4W').

    Paper and published package: D -> D/2 -> D/4; the published segmenter 192/16: 192 -> 128 -> 64, here `head_dim` 128.
    """

    scale = 4

    def __init__(self, config: WaveMixConfig, num_classes: int) -> None:
        width = config.head_dim or config.dim // 2
        half = max(width // 2, 1)
        super().__init__(
            nn.ConvTranspose2d(config.dim, width, 4, stride=2, padding=1),
            nn.ConvTranspose2d(width, half, 4, stride=2, padding=1),
            nn.Conv2d(half, num_classes, 1),
        )


class WaveMixClassifier(WaveMix, HubModel):
    """WaveMix for image classification (Fig. 1a). Images (B, C, H, W) -> logits (B, K)."""

    task = "classification"

    def __init__(self, config: WaveMixConfig, num_classes: int) -> None:
        super().__init__(config)
        self.num_classes = num_classes
        self.head = ClassificationHead(config, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.forward_features(images))
        return logits

    def fuse(self) -> FusedClassifier:
        """An equal model made for inference, faster on a CPU; this one stays as it is."""
        return fuse_classifier(self)


class WaveMixSegmenter(WaveMix, HubModel):
    """WaveMix for semantic segmentation (Fig. 1b). Images (B, C, H, W) -> logits (B, K, H, W), for any H and W.

    Images whose sides the stem does not divide are continued by their last row and column, and the logits cropped.
    A stem that reduces by other than the head's factor of 4 gets its logits resized bilinearly.
    """

    task = "segmentation"

    def __init__(self, config: WaveMixConfig, num_classes: int) -> None:
        super().__init__(config)
        self.num_classes = num_classes
        self.head = SegmentationHead(config, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        rows, columns = (-side % self.stem.reduction for side in images.shape[-2:])
        padded = F.pad(images, (0, columns, 0, rows), mode="replicate") if rows or columns else images
        logits = run_head(self.head, self.forward_features(padded), self.execution)
        if self.stem.reduction != self.head.scale:
            logits = F.interpolate(logits, size=padded.shape[-2:], mode="bilinear", align_corners=False)
        return crop(logits, images)

    def fuse(self) -> WaveMixSegmenter:
        """An equal model made for inference, faster on a CPU; this one stays as it is."""
        return fuse_segmenter(self)


_TASKS: dict[str, type[WaveMixClassifier] | type[WaveMixSegmenter]] = {
    "classification": WaveMixClassifier,
    "segmentation": WaveMixSegmenter,
}
_SEGMENTATION_DEFAULTS: dict[str, Any] = {"stride": 2, "dropout": 0.0}  # Appendix B.1; the published segmenter


def create_model(
    model: str | WaveMixConfig,
    num_classes: int,
    task: Literal["classification", "segmentation"] = "classification",
    *,
    pretrained: str | Path | None = None,
    **overrides: Any,
) -> WaveMixClassifier | WaveMixSegmenter:
    """Builds a model from the paper's notation or from a config.

    Args:
        model: Such as "WaveMix-192/16 (level 3)". A notation leaves stem, stride and the other fields at the defaults
            of `WaveMixConfig`; for segmentation, at stride 2 and dropout 0.
        num_classes: K.
        task: Which head the backbone gets.
        pretrained: Weights for it: a file, or the name of published ones; see `wavemix_pl.models.weights.load_weights`.
        overrides: Fields of `WaveMixConfig`.

    Raises:
        InputError: A notation or a value that no model can be built from, or weights that are not those of the model.

    >>> model = create_model("WaveMix-Lite-8/5", num_classes=10, in_channels=1)
    >>> sum(parameter.numel() for parameter in model.parameters())  # Table 5
    7156
    """
    if task not in _TASKS:
        raise InputError(f"task must be one of {', '.join(_TASKS)}, got {task!r}")
    if type(num_classes) is not int or num_classes < 1:
        raise InputError(f"num_classes must be a whole number of at least 1, got {num_classes!r}")
    if isinstance(model, WaveMixConfig):
        config = model.replace(**overrides)
    else:
        defaults = _SEGMENTATION_DEFAULTS if task == "segmentation" else {}
        config = WaveMixConfig.from_notation(model, **{**defaults, **overrides})
    built = _TASKS[task](config, num_classes)
    if pretrained is not None:
        from wavemix_pl.models.weights import load_weights  # imported late: it imports this module

        load_weights(built, pretrained)
    return built
