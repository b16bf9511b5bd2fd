"""The focal loss of each pixel (Section 4.2; Lin et al. 2017), or of each image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavemix_pl.errors import InputError


def focal_loss(
    logits: Tensor,
    targets: Tensor,
    gamma: float = 2.0,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    mean_first: bool = False,
) -> Tensor:
    """Cross-entropy with each pixel weighted by (1 - p)^gamma, p being the probability of its true class.

    Paper: pixel-wise; published code: one factor for the mean cross-entropy of the batch; here: pixel-wise, and the
    published code's with `mean_first`. With gamma 0 it is `torch.nn.functional.cross_entropy`, weights and label
    smoothing included.

    Args:
        logits: (B, K, ...), of any floating type; computed in float32.
        targets: (B, ...) int64.
        gamma: How much pixels that are known already are weighted down; at least 0.
        weight: (K,), of the classes.
        ignore_index: Target of void pixels: no loss, no gradient, not counted.
        label_smoothing: As in cross-entropy. The factor depends on the true class alone.
        mean_first: The published code's: the factor is applied once, to the mean cross-entropy of the batch (then
            with its label smoothing). For comparison only.

    Returns:
        The mean over all pixels that are not void (weighted by class where `weight` is given); 0 where all are void.

    Raises:
        InputError: Targets that are shares of classes.
    """
    if targets.is_floating_point():
        raise InputError("focal loss needs one class for each image or pixel: leave mixup and cutmix out")
    log_p = F.log_softmax(logits.float(), dim=1)  # the one large tensor that backward keeps
    nll = F.nll_loss(log_p, targets, ignore_index=ignore_index, reduction="none")
    kept = targets != ignore_index
    share = kept.to(log_p.dtype) if weight is None else weight.to(log_p)[targets.where(kept, 0)] * kept
    loss = (1 - label_smoothing) * share * nll
    if label_smoothing:
        weighted = log_p if weight is None else log_p * weight.to(log_p).view(-1, *[1] * (log_p.ndim - 2))
        loss = loss - label_smoothing / log_p.shape[1] * (weighted.sum(dim=1) * kept)
    total = share.sum().clamp_min(torch.finfo(share.dtype).tiny)
    if mean_first:
        mean = loss.sum() / total
        return _factor(mean, gamma) * mean
    return (_factor(nll, gamma) * loss).sum() / total


def _factor(nll: Tensor, gamma: float) -> Tensor:
    # 1 - p without cancellation; the clamp keeps the derivative of powers below 1 finite
    return (-torch.expm1(-nll)).clamp_min(torch.finfo(nll.dtype).tiny) ** gamma


class FocalLoss(nn.Module):
    """`focal_loss` as a module; without parameters, and without a trace in checkpoints.

    Args:
        gamma: As in `focal_loss`, like the rest.
    """

    def __init__(
        self,
        gamma: float = 2.0,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        mean_first: bool = False,
    ) -> None:
        super().__init__()
        if gamma < 0:
            raise InputError(f"gamma must be at least 0, got {gamma}")
        self.gamma, self.ignore_index, self.label_smoothing = gamma, ignore_index, label_smoothing
        self.mean_first = mean_first
        self.weight: Tensor | None
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return focal_loss(
            logits, targets, self.gamma, self.weight, self.ignore_index, self.label_smoothing, self.mean_first
        )
