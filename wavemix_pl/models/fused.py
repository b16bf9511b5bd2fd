"""WaveMix made for inference: the same logits from fewer and larger operations, all of it plain convolutions.

- Batch norm goes into the transposed convolution before it, Haar into the 1x1 convolution behind it.
- Stem convolutions with no activation between them become one, as do the last two layers of a segmenter.
- A classifier needs the mean of the last block's output only, which is known without that output.
- Blocks of few channels see the image as cells of 2x2 pixels: their transposed convolution is then a plain one.
- On a CPU the convolutions' weights are laid out once, not in every call.

`experiments/README.md` says what each gains.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from wavemix_pl.models.cells import enlarge_in_cells, expand_in_cells, fits_cells, to_cells
from wavemix_pl.models.merged_head import merged_weights, merging_pays
from wavemix_pl.models.merged_stem import MergedStem
from wavemix_pl.models.mixers import DWT, Bilinear, Deconv
from wavemix_pl.models.packed import pack
from wavemix_pl.models.wavelets import HAAR, crop, even, fold_haar

if TYPE_CHECKING:
    from wavemix_pl.models.wavemix import LevelPath, WaveMixBlock, WaveMixClassifier, WaveMixSegmenter

Module = TypeVar("Module", bound=nn.Module)


def fuse_classifier(model: WaveMixClassifier) -> FusedClassifier:
    """See `WaveMixClassifier.fuse`."""
    return _ready(FusedClassifier(_copy(model).cpu()), model)


def fuse_segmenter(model: WaveMixSegmenter) -> WaveMixSegmenter:
    """See `WaveMixSegmenter.fuse`."""
    fused = _copy(model).cpu()
    fused.stem = MergedStem(fused.stem)  # type: ignore[assignment]  # a stem as well
    fused.blocks = nn.Sequential(*map(_fuse_block, fused.blocks))
    if merging_pays(fused.head):
        second = fused.head[1]
        second.weight, second.bias = (nn.Parameter(one) for one in merged_weights(fused.head))
        fused.head[2] = nn.Identity()
    return _ready(fused, model)


class FusedClassifier(nn.Module):
    """What `WaveMixClassifier.fuse` returns. Images (B, C, H, W) -> logits (B, K)."""

    def __init__(self, model: WaveMixClassifier) -> None:
        super().__init__()
        self.config = model.config
        self.stem = MergedStem(model.stem)
        self.blocks = nn.Sequential(*map(_fuse_block, model.blocks))
        last = self.blocks[-1]
        self.mean_is_known = isinstance(last, FusedBlock) and isinstance(last.paths[0].upsample, Deconv)
        in_cells = fits_cells(cast("WaveMixBlock", model.blocks[-1]))
        self.cells = CellBlocks(model.blocks) if in_cells else None
        self.linear = model.head.linear
        mix = model.head.mix
        if isinstance(mix, nn.Conv2d):  # it and the mean change places
            weight, bias = self.linear.weight, self.linear.bias
            self.linear = nn.Linear(model.config.dim, len(weight))
            self.linear.weight = nn.Parameter(weight @ mix.weight[:, :, 0, 0])
            self.linear.bias = nn.Parameter(weight @ cast(Tensor, mix.bias) + bias)

    def forward_features(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D, H', W')."""
        features: Tensor = self.blocks(self.stem(images))
        return features

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        if self.cells is not None and x.shape[-2] % 2 == x.shape[-1] % 2 == 0:
            mean = self.cells(x)
        elif self.mean_is_known:
            mean = cast(FusedBlock, self.blocks[-1]).mean(self.blocks[:-1](x))
        else:
            mean = self.blocks(x).mean((2, 3))
        logits: Tensor = self.linear(mean)
        return logits


class FusedPath(nn.Module):
    """A `LevelPath` whose first convolution takes the map that the sub-bands come from."""

    def __init__(self, path: LevelPath, dim: int) -> None:
        super().__init__()
        weight = path.expand.weight
        hidden, coarser = len(weight), weight.shape[1] - dim
        self.expand = nn.Conv2d(dim // 4, hidden, 2, stride=2)
        self.expand.weight, self.expand.bias = nn.Parameter(fold_haar(weight[:, :dim])), path.expand.bias
        self.expand_coarser = nn.Conv2d(coarser, hidden, 1, bias=False) if coarser else None
        if self.expand_coarser is not None:
            self.expand_coarser.weight = nn.Parameter(weight[:, dim:])
        self.project, self.upsample = path.project, path.upsample
        self.norm: nn.Module = nn.Identity()
        if isinstance(path.upsample, nn.ConvTranspose2d):
            self.upsample = fuse_conv_bn_eval(path.upsample, path.norm, transpose=True)
        elif isinstance(path.upsample, Bilinear):  # a mean of neighbours: what scales and shifts them may come first
            self.project = fuse_conv_bn_eval(path.project, path.norm)
        else:
            self.norm = path.norm

    def mlp(self, level_input: Tensor, coarser: Tensor | None) -> Tensor:
        """All but the upsampling."""
        hidden: Tensor = self.expand(level_input)
        if self.expand_coarser is not None and coarser is not None:
            hidden += self.expand_coarser(crop(coarser, hidden))
        projected: Tensor = self.project(F.gelu(hidden))
        return projected

    def forward(self, level_input: Tensor, coarser: Tensor | None) -> Tensor:
        out: Tensor = self.norm(self.upsample(self.mlp(level_input, coarser)))
        return out


class FusedBlock(nn.Module):
    """A `WaveMixBlock` on the Haar wavelet."""

    def __init__(self, block: WaveMixBlock) -> None:
        super().__init__()
        self.reduce = block.reduce
        self.paths = cast(
            "list[FusedPath]", nn.ModuleList(FusedPath(path, block.reduce.in_channels) for path in block.paths)
        )

    def _to_finest(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the finest path takes."""
        pyramid = [even(self.reduce(x))]
        for _ in self.paths[1:]:
            pyramid.append(even(2 * F.avg_pool2d(pyramid[-1], 2)))  # Haar's approximations
        out = None
        for level_input, path in zip(pyramid[:0:-1], self.paths[:0:-1], strict=True):
            out = path(level_input, out)
        return pyramid[0], out

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.paths[0](*self._to_finest(x))
        if out.shape != x.shape:
            out = crop(out, x)
        out += x  # exporters make of an addition to what was cropped many times as slow an operation
        return out

    def mean(self, x: Tensor) -> Tensor:
        """Mean over space of what `forward` returns, (B, D), without the transposed convolution of the whole map.

        A tap of its kernel reaches the output from each place of the input, but for those from which it would lie
        outside. So its share of the mean is a sum over the input, or all but a row, or all but a column.
        """
        path = self.paths[0]
        projected, deconv = path.mlp(*self._to_finest(x)), cast(Deconv, path.upsample)
        height, width = x.shape[-2:]
        rows = _reached(deconv, projected.shape[-2], height).to(x)
        columns = _reached(deconv, projected.shape[-1], width).to(x)
        sums = rows @ projected @ columns.T  # (B, ff, 4, 4)
        means = torch.einsum("bfkl,fokl->bo", sums, deconv.weight) / (height * width)
        return means + cast(Tensor, deconv.bias) + x.mean((2, 3))


class CellBlocks(nn.Module):
    """The blocks of a narrow WaveMix-Lite on cells: (B, D, H, W) with even sides -> mean over space (B, D)."""

    def __init__(self, blocks: nn.Sequential) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(self._in_cells(cast("WaveMixBlock", block)) for block in blocks))

    @staticmethod
    def _in_cells(block: WaveMixBlock) -> nn.Sequential:
        path, dim = block.paths[0], block.reduce.in_channels
        expand = nn.Conv2d(4 * dim, path.expand.out_channels, 1)
        expand.weight, expand.bias = (nn.Parameter(one) for one in expand_in_cells(block))
        deconv = fuse_conv_bn_eval(cast(Deconv, path.upsample), path.norm, transpose=True)
        enlarge = nn.Conv2d(deconv.in_channels, 4 * dim, 3, padding=1)
        enlarge.weight = nn.Parameter(enlarge_in_cells(deconv.weight))
        enlarge.bias = nn.Parameter(cast(Tensor, deconv.bias).repeat_interleave(4))
        return nn.Sequential(expand, nn.GELU(), path.project, enlarge)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels = x.shape[:2]
        cells = to_cells(x)
        for block in self.blocks:
            cells = block(cells).add_(cells)
        return cells.mean((2, 3)).view(batch, channels, 4).mean(2)


def _fuse_block(block: nn.Module) -> nn.Module:
    """Blocks with another mixer or wavelet stay as they are."""
    block = cast("WaveMixBlock", block)
    return FusedBlock(block) if type(block.mixer) is DWT and block.mixer.wavelet in HAAR else block


def _reached(deconv: Deconv, inputs: int, outputs: int) -> Tensor:
    """(taps, inputs): 1 where a tap of the kernel carries an input to one of the outputs."""
    place = torch.arange(inputs) * deconv.stride[0] + torch.arange(deconv.kernel_size[0])[:, None] - 1  # its padding
    return (place >= 0) & (place < outputs)


def _copy(module: Module) -> Module:
    return deepcopy(module).eval()


def _ready(fused: Module, model: nn.Module) -> Module:
    """For inference only, where and in which precision the model is, channels last, packed."""
    parameter = next(model.parameters())
    fused.eval().requires_grad_(False).to(parameter.device, parameter.dtype)
    pack(fused.to(memory_format=torch.channels_last))
    return fused
