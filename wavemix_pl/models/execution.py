"""How a model runs in training: other ways to the numbers of `wavemix.py`, faster or with less memory.

"fast" merges convolutions of stem and head, folds Haar into the convolution behind it, and saves one wide map less for
the backward pass. "lean" keeps of a block only what enters its batch norms, and rebuilds the rest from the block's
output. "checkpointed" keeps only what enters a block, and runs it again. In evaluation all runs as it is written in
`wavemix.py`; `fused.py` is for that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Literal, cast

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wavemix_pl.models.fast import run_fast
from wavemix_pl.models.layout import keep_layout
from wavemix_pl.models.lean import run_lean
from wavemix_pl.models.merged_head import run_merged_head
from wavemix_pl.models.merged_stem import run_merged

if TYPE_CHECKING:
    from wavemix_pl.models.wavemix import PatchifyStem, SegmentationHead, StridedStem, WaveMixBlock

Execution = Literal["plain", "fast", "lean", "checkpointed"]


def run_stem(stem: StridedStem | PatchifyStem, images: Tensor, execution: Execution) -> Tensor:
    """(B, C, H, W) -> (B, D, H', W')."""
    return run_merged(stem, images) if stem.training and execution in ("fast", "lean") else stem(images)


def run_head(head: SegmentationHead, x: Tensor, execution: Execution) -> Tensor:
    """(B, D, H', W') -> (B, K, 4H', 4W')."""
    return run_merged_head(head, x) if head.training and execution in ("fast", "lean") else cast(Tensor, head(x))


def run_blocks(blocks: nn.Sequential, x: Tensor, execution: Execution) -> Tensor:
    """All blocks, one after another. (B, D, H, W) -> (B, D, H, W).

    "fast" and "lean" call a block's parts, not the block: forward hooks on blocks are for "plain" and "checkpointed".
    """
    if execution == "plain" or not blocks.training:
        return cast(Tensor, blocks(x))
    frozen = next((i for i, block in enumerate(blocks) if block.training), len(blocks))
    x, each = blocks[:frozen](x), cast("list[WaveMixBlock]", blocks[frozen:])  # the first ones may be in evaluation
    if execution == "lean":
        x = run_lean(each, x)
    elif execution == "fast":
        x = run_fast(each, x)
    else:
        for block in each:
            x = _checkpointed(block, x)
    return keep_layout(x)


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
