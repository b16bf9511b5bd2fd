"""Our models against the authors' published package, `wavemix` 0.2.4, on the same weights."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from torch import nn

from tests.models import give_statistics
from wavemix_pl import WaveMixConfig, create_model
from wavemix_pl.errors import InputError
from wavemix_pl.models.execution import Execution
from wavemix_pl.models.published import published_model
from wavemix_pl.models.weights import our_names

CASES = [("classification", "strided", level, {}) for level in (1, 2, 3, 4)] + [
    ("classification", "patchify", 3, {"ff": 20, "mult": 3}),
    ("classification", "patchify", 1, {"ff": 24}),
    ("segmentation", "strided", 1, {"mult": 3}),
    ("segmentation", "strided", 4, {"ff": 12}),
]


@pytest.mark.parametrize(("task", "stem", "level", "other"), CASES)
@pytest.mark.parametrize("training", [False, True])
def test_same_logits_and_gradients(task: Any, stem: str, level: int, other: dict[str, int], training: bool) -> None:
    torch.manual_seed(level)
    ours = create_model(
        f"WaveMix-16/2 (level {level})", 5, task=task, stem=stem, stride=2, patch_size=4, dropout=0.0, **other
    )
    theirs = published_model(ours.config, 5, task)
    give_statistics(theirs)
    ours.load_state_dict(our_names(theirs.state_dict()), strict=True)
    ours.train(training)
    theirs.train(training)

    images = torch.randn(2, 3, 64, 128, requires_grad=True)
    expected = theirs(images)
    weights = torch.randn_like(expected)
    (expected_gradient,) = torch.autograd.grad((expected * weights).sum(), images)
    for execution in get_args(Execution) if training else ("plain", "fused"):
        model: Any = ours.fuse() if execution == "fused" else ours
        model.execution = execution
        logits = model(images)
        (gradient,) = torch.autograd.grad((logits * weights).sum(), images)
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-4)


def test_the_released_segmenters_head() -> None:
    """A patchify classifier whose `pool` is replaced by 192 -> 128 -> 64 -> 20, here 16 -> 12 -> 6 -> 5."""
    classifier = WaveMixConfig(dim=16, depth=1, level=2, stem="patchify")
    theirs: Any = published_model(classifier, 5)
    theirs.pool = nn.Sequential(
        nn.ConvTranspose2d(16, 12, 4, stride=2, padding=1),
        nn.ConvTranspose2d(12, 6, 4, stride=2, padding=1),
        nn.Conv2d(6, 5, 1),
    )
    ours = create_model("WaveMix-16/1 (level 2)", 5, task="segmentation", stem="patchify", patch_size=4, head_dim=12)
    ours.load_state_dict(our_names(theirs.state_dict()), strict=True)
    images = torch.randn(1, 3, 32, 64)
    torch.testing.assert_close(ours.eval()(images), theirs.eval()(images), rtol=0, atol=1e-5)


def test_images_of_one_channel() -> None:
    ours = create_model("WaveMix-Lite-8/2", 5, in_channels=1).eval()
    theirs = published_model(ours.config, 5).eval()
    ours.load_state_dict(our_names(theirs.state_dict()), strict=True)
    images = torch.randn(2, 1, 28, 28)
    torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("task", "fields"),
    [
        ("classification", {"level": 5}),
        ("classification", {"wavelet": "db2"}),
        ("classification", {"upsample": "bilinear"}),
        ("classification", {"head_dim": 32}),
        ("segmentation", {"stem": "patchify"}),
    ],
)
def test_what_the_package_does_not_have(task: Any, fields: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="published package has no"):
        published_model(WaveMixConfig(dim=16, depth=1, **fields), 5, task)
