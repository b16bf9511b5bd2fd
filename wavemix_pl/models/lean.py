"""Blocks in training that keep little for the backward pass, and rebuild the rest at little cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavemix_pl.errors import InputError
from wavemix_pl.models.fast import convolution_backward, mix
from wavemix_pl.models.wavelets import crop

if TYPE_CHECKING:
    from wavemix_pl.models.wavemix import LevelPath, WaveMixBlock


def run_lean(blocks: Sequence[WaveMixBlock], x: Tensor) -> Tensor:
    """See `_Lean`.

    Raises:
        InputError: A batch norm that does not take its statistics from the batch, or takes them from several devices.
    """
    chain = _Chain()
    for block in blocks:
        if any(type(path.norm) is not nn.BatchNorm2d or not path.norm.training for path in block.paths):
            raise InputError("execution 'lean' needs plain batch norms in training mode: choose 'checkpointed'")
        x = _Lean.apply(x, block, chain, *block.parameters())
    x = _LeanEnd.apply(x, chain)
    return x


class _Chain:
    """Where the backward passes of neighbouring blocks meet: the output of the block whose turn it is."""

    output: Tensor


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
        ctx.autocast["cache_enabled"] = False  # torch 2.6 would find weights there that were cast without gradients
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

        out = mix(block, x, enlarge)
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
                normed: Tensor = _Replay.apply(next(made), projected, *parameters, upsample, norm.eps)
                return normed
            return F.batch_norm(upsample(projected), None, None, norm.weight, norm.bias, True, eps=norm.eps)

        with torch.enable_grad(), _random_state(x, ctx.random_state), torch.autocast(x.device.type, **ctx.autocast):
            x = x.detach().requires_grad_()
            out = crop(mix(block, x, enlarge), x)
        wanted = [parameter for parameter in block.parameters() if parameter.requires_grad]
        of_x, *found = torch.autograd.grad(out, [x, *wanted], gradient.to(out.dtype))
        # in the parameters' layout, as DistributedDataParallel wants them
        each = (torch.empty_like(parameter).copy_(one) for parameter, one in zip(wanted, found, strict=True))
        of_parameters = [next(each) if parameter.requires_grad else None for parameter in block.parameters()]
        return gradient + of_x, None, None, *of_parameters


class _Enlarged:
    """A map before and after its batch norm."""

    def __init__(self, norm: nn.BatchNorm2d, large: Tensor, mean: Tensor, inverse_std: Tensor) -> None:
        self.large, self.mean, self.inverse_std = large, mean, inverse_std
        variance = inverse_std.square().reciprocal() - norm.eps
        self.normed = F.batch_norm(large, mean, variance, norm.weight, norm.bias, False, 0.0, norm.eps)


class _Replay(torch.autograd.Function):
    """Transposed convolution and batch norm whose results are there already."""

    @staticmethod
    def forward(ctx: Any, enlarged: _Enlarged, projected: Tensor, *rest: Any) -> Tensor:
        weight, _, norm_weight, _, ctx.upsample, ctx.eps = rest
        # not `enlarged` itself: the result, which is in it, would keep itself alive
        ctx.save_for_backward(projected, weight, norm_weight, enlarged.large, enlarged.mean, enlarged.inverse_std)
        return enlarged.normed.view_as(enlarged.normed)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        projected, weight, norm_weight, large, mean, inverse_std = ctx.saved_tensors
        of_large, of_norm_weight, of_norm_bias = torch.ops.aten.native_batch_norm_backward(
            *(gradient, large, norm_weight, None, None, mean, inverse_std, True, ctx.eps, [True] * 3)
        )
        of_convolution = convolution_backward(of_large, projected, weight, ctx.upsample)
        return None, *of_convolution, of_norm_weight, of_norm_bias, None, None


@contextmanager
def _random_state(like: Tensor, state: Tensor) -> Iterator[None]:
    """Draws the numbers that follow a state, and then those that would have been drawn without this."""
    with torch.random.fork_rng(devices=[like.device] if like.is_cuda else []):
        if like.is_cuda:
            torch.cuda.set_rng_state(state, like.device)
        else:
            torch.set_rng_state(state)
        yield
