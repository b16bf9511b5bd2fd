"""Focal loss against cross-entropy, its definition, and its corners."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from wavemix_pl.errors import InputError
from wavemix_pl.losses import FocalLoss, focal_loss

VOID = 255


def example(seed: int = 0, void: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 5, 6, 7, generator=generator, requires_grad=True)
    targets = torch.randint(0, 5, (2, 6, 7), generator=generator)
    if void:
        targets[0, :3] = VOID
    return logits, targets


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gamma_zero_is_cross_entropy(weighted: bool, smoothing: float) -> None:
    logits, targets = example()
    weight = torch.tensor([0.2, 1.0, 2.0, 0.5, 3.0]) if weighted else None
    ours = focal_loss(logits, targets, 0.0, weight, VOID, smoothing)
    theirs = F.cross_entropy(logits, targets, weight, ignore_index=VOID, label_smoothing=smoothing)
    torch.testing.assert_close(ours, theirs)
    for mine, other in zip(torch.autograd.grad(ours, logits), torch.autograd.grad(theirs, logits), strict=True):
        torch.testing.assert_close(mine, other)


@given(gamma=st.floats(0, 5), seed=st.integers(0, 99))
def test_definition_pixel_by_pixel(gamma: float, seed: int) -> None:
    logits, targets = example(seed)
    kept = targets != VOID
    p = logits.softmax(1).gather(1, targets.where(kept, 0)[:, None])[:, 0][kept]
    expected = (-((1 - p) ** gamma) * p.log()).sum() / kept.sum()
    torch.testing.assert_close(focal_loss(logits, targets, gamma, ignore_index=VOID), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_mean_first_is_the_published_codes(gamma: float, smoothing: float) -> None:
    """One factor for the mean of all pixels, void aside: by its formula, value and gradient."""
    logits, targets = example()
    weight = torch.tensor([0.2, 1.0, 2.0, 0.5, 3.0])
    mean = F.cross_entropy(logits, targets, weight, ignore_index=VOID, label_smoothing=smoothing)
    published = (1 - (-mean).exp()) ** gamma * mean
    ours = focal_loss(logits, targets, gamma, weight, VOID, smoothing, mean_first=True)
    torch.testing.assert_close(ours, published)
    torch.testing.assert_close(torch.autograd.grad(ours, logits), torch.autograd.grad(published, logits))
    nothing = focal_loss(logits, torch.full_like(targets, VOID), ignore_index=VOID, mean_first=True)
    assert float(nothing.detach()) == 0


def test_mean_first_is_another_loss() -> None:
    """The paper's factor belongs to each pixel, not to their mean."""
    logits, targets = example(void=False)
    pixelwise, published = FocalLoss()(logits, targets), FocalLoss(mean_first=True)(logits, targets)
    assert abs(float((pixelwise - published).detach())) > 0.01


def test_void_pixels_have_no_gradient() -> None:
    logits, targets = example()
    (gradient,) = torch.autograd.grad(focal_loss(logits, targets, 2.0, None, VOID, 0.1), logits)
    assert float(gradient[0, :, :3].abs().max()) == 0
    assert float(gradient[1].abs().min()) > 0
    nothing = focal_loss(logits, torch.full_like(targets, VOID), ignore_index=VOID)
    assert float(nothing) == 0
    assert float(torch.autograd.grad(nothing, logits)[0].abs().max()) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_finite_in_any_precision(dtype: torch.dtype, gamma: float) -> None:
    logits = torch.tensor([[6e4, -6e4, 0.0], [-6e4, 6e4, 0.0], [0.0, 0.0, 0.0]]).to(dtype).requires_grad_()
    loss = focal_loss(logits, torch.tensor([0, 0, 2]), gamma)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert bool(loss.isfinite())
    assert bool(gradient.isfinite().all())


def test_gradients_in_float64() -> None:
    logits, targets = example()
    weight = torch.tensor([0.2, 1.0, 2.0, 0.5, 3.0])
    small = logits[:1, :, :2, :3].detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(focal_loss(small, targets[1:, :2, :3], 2.0, weight, VOID, 0.1), small)
    step = torch.zeros_like(small)
    step[0, 2, 1, 1] = 1e-2
    with torch.no_grad():
        up, down = (focal_loss(small + sign * step, targets[1:, :2, :3], 2.0, weight, VOID, 0.1) for sign in (1, -1))
    assert float((up - down) / 2e-2) == pytest.approx(float(gradient[0, 2, 1, 1]), rel=1e-2)


def test_module_leaves_no_trace() -> None:
    loss = FocalLoss(weight=torch.ones(3))
    assert not loss.state_dict()
    assert not list(loss.parameters())
    with pytest.raises(InputError, match="gamma"):
        FocalLoss(gamma=-1)


@pytest.mark.slow
def test_memory_at_full_resolution() -> None:
    """At 1024x2048 and 20 classes the peak lies below 1.5 times that of cross-entropy."""
    script = """
import resource, sys, torch, torch.nn.functional as F
from wavemix_pl.losses import focal_loss
x = torch.randn(1, 20, 1024, 2048, requires_grad=True)
t = torch.randint(0, 20, (1, 1024, 2048)); t[:, :100] = 255
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
loss = F.cross_entropy(x, t, ignore_index=255) if sys.argv[1] == "ce" else focal_loss(x, t, ignore_index=255)
loss.backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    peaks = [int(subprocess.check_output([sys.executable, "-c", script, kind])) for kind in ("focal", "ce")]
    assert peaks[0] <= 1.5 * peaks[1]
