"""Which parts of a WaveMix are trained: only the head, the head and some blocks, or all."""

from __future__ import annotations

from typing import cast

from torch import nn

from wavemix_pl.models.wavemix import WaveMix


def backbone_parts(model: WaveMix) -> list[nn.Module]:
    """The stem and the blocks, in the order in which images pass them."""
    return [model.stem, *model.blocks]


def freeze(model: WaveMix, trained: int = 0) -> None:
    """Takes gradients from the stem and the blocks, but for the last ones; the head keeps its own.

    A parameter without gradient is skipped by every optimizer of torch, with its weight decay and its momentum. So an
    optimizer can have all parameters, whatever is frozen, and its state in a checkpoint does not depend on it.

    Args:
        model: What is frozen in part.
        trained: How many of the parts, counted from the last block, are trained.
    """
    parts = backbone_parts(model)
    for i, part in enumerate(parts):
        part.requires_grad_(i >= len(parts) - trained)


def settle_modes(model: WaveMix) -> None:
    """Puts the parts without gradients into evaluation mode, the others into training mode.

    In evaluation mode batch norms keep their statistics, and there is no dropout.
    """
    for part in backbone_parts(model):
        part.train(_is_trained(part))
    # What tells the executions of `wavemix_pl.models.execution` whether there is anything to train in the blocks
    model.blocks.training = any(block.training for block in cast("list[nn.Module]", model.blocks))


def _is_trained(part: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in part.parameters())
