"""Our models against the authors' published package, `wavemix` 0.2.4, on the same weights."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from wavemix_pl import create_model
from wavemix_pl.models.weights import our_names


@pytest.fixture(scope="module")
def published() -> ModuleType:
    """The package imports a NumPy name that NumPy 2 removed."""
    stub = ModuleType("numpy.lib.function_base")
    stub.hamming = np.hamming  # type: ignore[attr-defined]
    sys.modules.setdefault("numpy.lib.function_base", stub)
    return pytest.importorskip("wavemix", reason="the published package comes with the extra [test]")


def published_model(task: str, **arguments: Any) -> nn.Module:
    if task == "segmentation":
        from wavemix.SemSegment import WaveMix
    else:
        from wavemix.classification import WaveMix
    return WaveMix(**arguments)


CASES = [("classification", "strided", level, {}) for level in (1, 2, 3, 4)] + [
    ("classification", "patchify", 3, {"ff": 20, "mult": 3}),
    ("classification", "patchify", 1, {"ff": 24}),
    ("segmentation", "strided", 1, {"mult": 3}),
    ("segmentation", "strided", 4, {"ff": 12}),
]


@pytest.mark.parametrize(("task", "stem", "level", "other"), CASES)
@pytest.mark.parametrize("training", [False, True])
def test_same_logits_and_gradients(
    published: ModuleType, task: Any, stem: str, level: int, other: dict[str, int], training: bool
) -> None:
    torch.manual_seed(level)
    ours = create_model(
        f"WaveMix-16/2 (level {level})", 5, task=task, stem=stem, stride=2, patch_size=4, dropout=0.0, **other
    )
    arguments = {"ff_channel": other.get("ff", 16), "mult": other.get("mult", 2), "final_dim": 16, "depth": 2}
    arguments |= {"level": level, "num_classes": 5, "dropout": 0.0, "stride": 2}
    if task == "classification":
        arguments |= {"initial_conv": "strided" if stem == "strided" else "pachify", "patch_size": 4}
    theirs = published_model(task, **arguments)
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    ours.load_state_dict(our_names(theirs.state_dict()), strict=True)
    ours.train(training)
    theirs.train(training)

    images = torch.randn(2, 3, 64, 128, requires_grad=True)
    weights = None
    results = []
    for model in (ours, theirs):
        logits = model(images)
        weights = torch.randn_like(logits) if weights is None else weights
        (gradient,) = torch.autograd.grad((logits * weights).sum(), images)
        results.append((logits, gradient))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=0, atol=1e-5)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=0, atol=1e-4)


def test_the_released_segmenters_head(published: ModuleType) -> None:
    """A patchify classifier whose `pool` is replaced by 192 -> 128 -> 64 -> 20, here 16 -> 12 -> 6 -> 5."""
    theirs: Any = published_model(
        "classification", final_dim=16, ff_channel=16, depth=1, level=2, num_classes=5, dropout=0.0, patch_size=4
    )
    theirs.pool = nn.Sequential(
        nn.ConvTranspose2d(16, 12, 4, stride=2, padding=1),
        nn.ConvTranspose2d(12, 6, 4, stride=2, padding=1),
        nn.Conv2d(6, 5, 1),
    )
    ours = create_model("WaveMix-16/1 (level 2)", 5, task="segmentation", stem="patchify", patch_size=4, head_dim=12)
    ours.load_state_dict(our_names(theirs.state_dict()), strict=True)
    images = torch.randn(1, 3, 32, 64)
    torch.testing.assert_close(ours.eval()(images), theirs.eval()(images), rtol=0, atol=1e-5)
