"""How the blocks run in training: other ways to the numbers of `WaveMixBlock.forward`, faster or with less memory.

"fast" folds Haar into the convolution behind it, and saves one wide map less for the backward pass. "lean" keeps of a
block only what enters its batch norms, and rebuilds the rest from the block's output. "checkpointed" keeps only what
enters a block, and runs it again. In evaluation the blocks run as they are written in `wavemix.py`; `fused.py` is for
that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wavemix_pl.errors import InputError
from wavemix_pl.models.cells import CellNorm, enlarge_in_cells, expand_in_cells, fits_cells, to_cells
from wavemix_pl.models.mixers import DWT, Deconv
from wavemix_pl.models.wavelets import HAAR, crop, even, fold_haar

if TYPE_CHECKING:
    from wavemix_pl.models.wavemix import LevelPath, WaveMixBlock

Execution = Literal["plain", "fast", "lean", "checkpointed"]

_aten = torch.ops.aten
_DROPPED = -256.0  # GELU and its derivative are exactly 0 here and below, in every precision


def run_blocks(blocks: nn.Sequential, x: Tensor, execution: Execution) -> Tensor:
    """All blocks, one after another. (B, D, H, W) -> (B, D, H, W).

    "fast" and "lean" call a block's parts, not the block: forward hooks on blocks are for "plain" and "checkpointed".
    """
    if execution == "plain" or not blocks.training:
        return cast(Tensor, blocks(x))
    each = cast("list[WaveMixBlock]", blocks)
    if execution == "lean":
        x = _run_lean(each, x)
    elif execution == "checkpointed":
        for block in each:
            x = _checkpointed(block, x)
    elif _suits_cells(each, x):
        cells = to_cells(x)
        for block in each:
            cells = _fast_in_cells(block, cells)
        x = F.pixel_shuffle(cells, 2)
    else:
        for block in each:
            x = _fast(block, x)
    kept: Tensor = _LayoutKept.apply(x)
    return kept


class _LayoutKept(torch.autograd.Function):
    """Gives the gradient the map's layout in memory.

    That of a mean lies channels first, which would make batch norm's backward pass nine times slower in every block.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        last = x.is_contiguous(memory_format=torch.channels_last)
        ctx.layout = torch.channels_last if last else torch.contiguous_format
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return torch.empty_like(gradient, memory_format=ctx.layout).copy_(gradient)


def _fast(block: WaveMixBlock, x: Tensor) -> Tensor:
    out = _mix(block, x, lambda path, projected: path.norm(path.upsample(projected)))
    return out.add_(x) if out.shape == x.shape and out.dtype == x.dtype else crop(out, x) + x


def _suits_cells(blocks: Iterable[WaveMixBlock], x: Tensor) -> bool:
    norms = [path.norm for block in blocks for path in block.paths]
    return (
        x.shape[-2] % 2 == x.shape[-1] % 2 == 0
        and all(fits_cells(block) for block in blocks)
        and all(type(norm) is nn.BatchNorm2d and norm.training and x.device.type == "cpu" for norm in norms)
    )


def _fast_in_cells(block: WaveMixBlock, cells: Tensor) -> Tensor:
    path, upsample = block.paths[0], cast(Deconv, block.paths[0].upsample)
    projected = _project(path, F.conv2d(cells, *expand_in_cells(block)))
    bias = cast(Tensor, upsample.bias).repeat_interleave(4)
    large = F.conv2d(projected, enlarge_in_cells(upsample.weight), bias, padding=1)
    out: Tensor = CellNorm.apply(large, path.norm.weight, path.norm.bias, path.norm)
    return out.add_(cells) if out.dtype == cells.dtype else out + cells


def _mix(block: WaveMixBlock, x: Tensor, enlarge: Callable[[LevelPath, Tensor], Tensor]) -> Tensor:
    """Equations 1 to 4 with `enlarge` in the place of upsampling and batch norm; not cropped yet."""
    reduced = block.reduce(x)
    folded = type(block.mixer) is DWT and block.mixer.wavelet in HAAR
    if folded:
        inputs = [even(reduced)]
        for _ in range(1, block.mixer.level):
            inputs.append(even(2 * F.avg_pool2d(inputs[-1], 2)))
    else:
        inputs = block.mixer(reduced)
    out = None
    for level_input, path in zip(reversed(inputs), reversed(block.paths), strict=True):
        weight, bias = path.expand.weight, path.expand.bias
        split = weight.shape[1] - (0 if out is None else out.shape[1])
        own = weight[:, :split]
        hidden = F.conv2d(level_input, fold_haar(own) if folded else own, bias, stride=2 if folded else 1)
        if out is not None:
            hidden += F.conv2d(crop(out, hidden), weight[:, split:])
        out = enlarge(path, _project(path, hidden))
    assert out is not None  # a block has at least one level
    return out


def _project(path: LevelPath, hidden: Tensor) -> Tensor:
    """GELU, dropout and the second convolution of the MLP. Changes `hidden`."""
    p = path.drop.p if path.drop.training else 0.0
    if p:
        hidden = hidden.add_(_dropped(hidden, p))
    projected: Tensor = _GeluConv.apply(hidden, path.project.weight, path.project.bias, 1 / (1 - p))
    return projected


def _dropped(like: Tensor, p: float) -> Tensor:
    """0 where dropout of probability p keeps, at most -256 where it drops.

    On a CPU torch draws one random number for an element, which takes longer than the convolutions around it. Here one
    number of 64 bits serves 64 elements, or four if p is not a half, which is then exact to 2^-17.
    """
    if like.device.type != "cpu":
        return torch.empty_like(like).bernoulli_(p).mul_(_DROPPED)
    count = like.numel()
    numbers = torch.empty(-(-count // (64 if p == 0.5 else 4)), dtype=torch.int64).random_(-(2**63), None)
    if p == 0.5:
        each_bit = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8)
        dropped = (numbers.view(torch.uint8)[:, None] & each_bit).flatten()[:count]
    else:
        dropped = numbers.view(torch.int16)[:count] < round(p * 2**16) - 2**15
    batch, channels, height, width = like.shape
    return dropped.to(like.dtype).mul_(_DROPPED).view(batch, height, width, channels).permute(0, 3, 1, 2)


class _GeluConv(torch.autograd.Function):
    """GELU, then a 1x1 convolution whose input is scaled. Keeps the input of GELU only, and computes GELU twice."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        ctx.scale = scale
        return F.conv2d(F.gelu(hidden), weight if scale == 1 else weight * scale, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        hidden, weight = ctx.saved_tensors
        of_gelu, of_weight, of_bias = _convolution_backward(gradient, F.gelu(hidden), weight * ctx.scale)
        return _aten.gelu_backward(of_gelu, hidden), of_weight * ctx.scale, of_bias, None


def _convolution_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, transposed: nn.ConvTranspose2d | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias of a 1x1 convolution, or of a transposed one."""
    stride, padding = (transposed.stride, transposed.padding) if transposed else ((1, 1), (0, 0))
    channels = weight.shape[1 if transposed else 0]
    weight_like_x = weight.to(x.dtype)
    of_x, of_weight, of_bias = _aten.convolution_backward(
        *(gradient.to(x.dtype), x, weight_like_x, [channels], stride, padding),
        *([1, 1], transposed is not None, [0, 0], 1, [True, True, True]),
    )
    return of_x, of_weight.to(weight.dtype), of_bias.to(weight.dtype)


class _Chain:
    """Where the backward passes of neighbouring blocks meet: the output of the block whose turn it is."""

    output: Tensor


def _run_lean(blocks: Iterable[WaveMixBlock], x: Tensor) -> Tensor:
    chain = _Chain()
    for block in blocks:
        if any(type(path.norm) is not nn.BatchNorm2d or not path.norm.training for path in block.paths):
            raise InputError("execution 'lean' needs plain batch norms in training mode: choose 'checkpointed'")
        x = _Lean.apply(x, block, chain, *block.parameters())
    x = _LeanEnd.apply(x, chain)
    return x


class _LeanEnd(torch.autograd.Function):
    """Keeps the output of the last block."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, chain: _Chain) -> Tensor:
        ctx.chain = chain
        ctx.save_for_backward(x)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (ctx.chain.output,) = ctx.saved_tensors
        return gradient, None


class _Lean(torch.autograd.Function):
    """A block that keeps what enters its batch norms: in Lite 4 D numbers for a cell of 2x2 pixels, plain ones 14.5 D.

    Backward finds the block's input as its output less the last batch norm's, and runs the block again but for its
    upsampling, whose results are there.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, block: WaveMixBlock, chain: _Chain, *parameters: Tensor) -> Tensor:
        ctx.block, ctx.chain = block, chain
        device = x.device.type
        ctx.autocast = {"enabled": torch.is_autocast_enabled(device), "dtype": torch.get_autocast_dtype(device)}
        ctx.random_state = torch.cuda.get_rng_state(x.device) if x.is_cuda else torch.get_rng_state()
        kept: list[Tensor] = []

        def enlarge(path: LevelPath, projected: Tensor) -> Tensor:
            norm, large = path.norm, path.upsample(projected)
            cast(Tensor, norm.num_batches_tracked).add_(1)
            statistics = (norm.running_mean, norm.running_var)
            normed, mean, inverse_std = torch.native_batch_norm(
                large, norm.weight, norm.bias, *statistics, True, cast(float, norm.momentum), norm.eps
            )
            kept.extend((large, mean, inverse_std))
            return normed

        out = _mix(block, x, enlarge)
        ctx.save_for_backward(*kept)
        return crop(out, x) + x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        block, kept = ctx.block, ctx.saved_tensors
        coarsest_first = reversed(block.paths)  # as they were made
        enlarged = [_Enlarged(path.norm, *kept[3 * i : 3 * i + 3]) for i, path in enumerate(coarsest_first)]
        x = ctx.chain.output - crop(enlarged[-1].normed, ctx.chain.output)
        ctx.chain.output = x
        made = iter(enlarged)

        def enlarge(path: LevelPath, projected: Tensor) -> Tensor:
            upsample, norm = path.upsample, path.norm
            if isinstance(upsample, nn.ConvTranspose2d):
                parameters = (upsample.weight, upsample.bias, norm.weight, norm.bias)
                normed: Tensor = _Replay.apply(projected, *parameters, upsample, norm.eps, next(made))
                return normed
            return F.batch_norm(upsample(projected), None, None, norm.weight, norm.bias, True, eps=norm.eps)

        with torch.enable_grad(), _random_state(x, ctx.random_state), torch.autocast(x.device.type, **ctx.autocast):
            x = x.detach().requires_grad_()
            out = crop(_mix(block, x, enlarge), x)
        wanted = [parameter for parameter in block.parameters() if parameter.requires_grad]
        of_x, *found = torch.autograd.grad(out, [x, *wanted], gradient.to(out.dtype), allow_unused=True)
        each = iter(found)
        of_parameters = [next(each) if parameter.requires_grad else None for parameter in block.parameters()]
        return gradient + of_x, None, None, *of_parameters


class _Enlarged:
    """A map before and after its batch norm."""

    def __init__(self, norm: nn.BatchNorm2d, large: Tensor, mean: Tensor, inverse_std: Tensor) -> None:
        self.large, self.mean, self.inverse_std = large, mean, inverse_std
        scale = inverse_std * norm.weight
        shift = norm.bias - mean * scale
        self.normed = (large * scale.view(-1, 1, 1).to(large.dtype)).add_(shift.view(-1, 1, 1).to(large.dtype))


class _Replay(torch.autograd.Function):
    """Transposed convolution and batch norm whose results are there already."""

    @staticmethod
    def forward(ctx: Any, projected: Tensor, *rest: Any) -> Tensor:
        weight, _, norm_weight, _, ctx.upsample, ctx.eps, ctx.enlarged = rest
        ctx.save_for_backward(projected, weight, norm_weight)
        normed: Tensor = ctx.enlarged.normed
        return normed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        projected, weight, norm_weight = ctx.saved_tensors
        kept = ctx.enlarged
        of_large, of_norm_weight, of_norm_bias = _aten.native_batch_norm_backward(
            *(gradient, kept.large, norm_weight, None, None, kept.mean, kept.inverse_std, True, ctx.eps, [True] * 3)
        )
        of_convolution = _convolution_backward(of_large, projected, weight, ctx.upsample)
        return *of_convolution, of_norm_weight, of_norm_bias, None, None, None


@contextmanager
def _random_state(like: Tensor, state: Tensor) -> Iterator[None]:
    """Draws the numbers that follow a state, and then those that would have been drawn without this."""
    with torch.random.fork_rng(devices=[like.device] if like.is_cuda else []):
        if like.is_cuda:
            torch.cuda.set_rng_state(state, like.device)
        else:
            torch.set_rng_state(state)
        yield


def _checkpointed(block: WaveMixBlock, x: Tensor) -> Tensor:
    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _statistics_kept(block)

    out: Tensor = checkpoint(block, x, use_reentrant=False, context_fn=contexts)
    return out


@contextmanager
def _statistics_kept(block: WaveMixBlock) -> Iterator[None]:
    """Batch norms do not count the second forward pass of a batch."""
    norms = [module for module in block.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    before = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, momentum, batches in before:
            norm.momentum, norm.num_batches_tracked = momentum, batches
