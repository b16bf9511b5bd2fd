"""How gradients lie in memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def keep_layout(x: Tensor) -> Tensor:
    """The same tensor, whose gradient will lie in memory as it does.

    The gradient of a mean over space lies channels first, whatever the map does, and so would those of all blocks
    before it: batch norm's backward pass takes nine times as long then. Of gradients of weights that lie otherwise than
    the weights, DistributedDataParallel warns.
    """
    kept: Tensor = _LayoutKept.apply(x)
    return kept


class _LayoutKept(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.strides = x.stride()
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return gradient.new_empty_strided(gradient.shape, ctx.strides).copy_(gradient)
