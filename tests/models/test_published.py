"""Our models against the authors' published package, `wavemix` 0.2.4, on the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from tests.models import give_statistics
from wavemix_pl import WaveMixConfig, create_model
from wavemix_pl.errors import InputError
from wavemix_pl.models.execution import Execution
from wavemix_pl.models.published import published_model
from wavemix_pl.models.published_weights import PUBLISHED
from wavemix_pl.models.weights import export_authors_state_dict, load_weights, our_names, pretrained_model

CASES = [
    *(("classification", "strided", level, {}) for level in (1, 2, 3, 4)),
    ("classification", "patchify", 1, {"ff": 24}),
    ("classification", "patchify", 2, {"mult": 1}),
    ("classification", "patchify", 3, {"ff": 20, "mult": 3}),
    ("classification", "patchify", 4, {}),
    ("segmentation", "strided", 1, {"mult": 3}),
    ("segmentation", "strided", 2, {}),
    ("segmentation", "strided", 3, {"ff": 20, "mult": 3}),
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
    load_weights(ours, theirs.state_dict())
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


@pytest.mark.parametrize(("task", "stem", "level", "other"), CASES)
def test_the_package_loads_what_we_export(task: Any, stem: str, level: int, other: dict[str, int]) -> None:
    """After a step of training, in which running statistics have moved."""
    torch.manual_seed(level)
    ours = create_model(f"WaveMix-16/2 (level {level})", 5, task=task, stem=stem, stride=2, dropout=0.0, **other)
    give_statistics(ours)
    images = torch.randn(2, 3, 64, 128)
    before = ours.state_dict()["blocks.0.paths.0.norm.running_mean"].clone()
    optimizer = torch.optim.SGD(ours.parameters(), lr=0.01)
    ours.train()(images).square().mean().backward()
    optimizer.step()
    theirs = published_model(ours.config, 5, task)
    exported = export_authors_state_dict(ours)
    theirs.load_state_dict(exported, strict=True)
    assert list(our_names(exported)) == list(ours.state_dict())
    assert not torch.equal(exported[f"layers.0.feedforward{1 if level > 1 else ''}.5.running_mean"], before)
    torch.testing.assert_close(ours.eval()(images), theirs.eval()(images), rtol=0, atol=1e-5)


def test_an_export_is_a_copy_in_the_usual_layout() -> None:
    ours = create_model("WaveMix-Lite-8/1", 5).to(memory_format=torch.channels_last)
    exported = export_authors_state_dict(ours)
    assert all(tensor.is_contiguous() and not tensor.requires_grad for tensor in exported.values())
    for tensor in exported.values():
        tensor.zero_()
    assert ours.head.linear.weight.abs().sum() > 0


def released_segmenter(config: WaveMixConfig, num_classes: int) -> nn.Module:
    """As the authors made theirs: a classifier whose `pool` is replaced by 192 -> 128 -> 64 -> 20, or narrower ones."""
    theirs: Any = published_model(config.replace(head_dim=None), 5)
    width = config.head_dim or 0
    theirs.pool = nn.Sequential(
        nn.ConvTranspose2d(config.dim, width, 4, stride=2, padding=1),
        nn.ConvTranspose2d(width, width // 2, 4, stride=2, padding=1),
        nn.Conv2d(width // 2, num_classes, 1),
    )
    model: nn.Module = theirs
    return model


def test_the_released_segmenters_head() -> None:
    ours = create_model("WaveMix-16/1 (level 2)", 7, task="segmentation", stem="patchify", patch_size=4, head_dim=12)
    theirs = released_segmenter(ours.config, 7)
    give_statistics(theirs)
    load_weights(ours, theirs.state_dict())
    images = torch.randn(1, 3, 32, 64)
    torch.testing.assert_close(ours.eval()(images), theirs.eval()(images), rtol=0, atol=1e-5)
    exported = export_authors_state_dict(ours, layout="released")
    torch.testing.assert_close(exported, dict(theirs.state_dict()), rtol=0, atol=0)
    with pytest.raises(InputError, match="with stem='patchify', head_dim=12"):
        export_authors_state_dict(ours)


NAMES = [
    "imagenet/wavemix-192-16-level3",
    "imagenet/wavemix-lite-192-16",
    "imagenet/wavemix-256-16-level3",
    "imagenet/wavemix-256-16-level4",
    "places365/wavemix-256-12-level2",
    "galaxy10/wavemix-192-16-level3",
    "galaxy10/wavemix-lite-192-16",
    "cifar10/wavemix-lite-320-8",
    "cifar10/wavemix-lite-144-7",
    "cifar100/wavemix-lite-256-10",
    "cifar100/wavemix-lite-256-8",
    "tinyimagenet/wavemix-192-16-level3-128px",
    "tinyimagenet/wavemix-192-16-level3",
    "tinyimagenet/wavemix-lite-256-12",
    "cityscapes/wavemix-192-16-level3",
]


def test_the_names_of_the_published_weights() -> None:
    assert list(PUBLISHED) == NAMES
    assert len({entry.file for entry in PUBLISHED.values()}) == len(NAMES)


def of_their_package(name: str) -> dict[str, Tensor]:
    """A state dict of the model that the authors' script for a file builds; each tensor has a value of its own.

    A tensor is one number, repeated without copies, so that the files are small.
    """
    entry = PUBLISHED[name]
    with torch.device("meta"):
        segmenter = entry.task == "segmentation"
        model = (released_segmenter if segmenter else published_model)(entry.config, entry.num_classes)
    return {
        name: torch.tensor(1 + number, dtype=tensor.dtype).expand(tensor.shape)
        for number, (name, tensor) in enumerate(model.state_dict().items())
    }


@pytest.mark.parametrize("name", NAMES)
def test_each_published_name_loads_its_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry, state = PUBLISHED[name], of_their_package(name)
    path = tmp_path / "weights" / entry.file
    path.parent.mkdir(parents=True)
    torch.save(state, path)
    monkeypatch.chdir(tmp_path)
    model = pretrained_model(name)
    torch.testing.assert_close(export_authors_state_dict(model, layout="released"), state, rtol=0, atol=0)


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
        ("segmentation", {"head_dim": 12}),
        ("segmentation", {"stem": "patchify"}),
    ],
)
def test_what_the_package_does_not_have(task: Any, fields: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="published package has no"):
        published_model(WaveMixConfig(dim=16, depth=1, **fields), 5, task)
    with pytest.raises(InputError, match="published package has no"):
        export_authors_state_dict(create_model(WaveMixConfig(dim=16, depth=1, **fields), 5, task))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Linear(2, 2), "got Linear"),
        (create_model("WaveMix-Lite-8/1", 5).fuse(), "got FusedClassifier"),
        (create_model("WaveMix-Lite-8/1", 5, "segmentation").fuse(), "not as it was built"),
        (create_model("WaveMix-Lite-8/1", 5, mixer="dft"), "WaveMix-Lite-8/1 for classification with mixer='dft'"),
        (create_model("WaveMix-Lite-8/1", 5, in_channels=1), "with in_channels=1"),
    ],
)
def test_what_cannot_be_exported(model: nn.Module, message: str) -> None:
    with pytest.raises(InputError, match=message):
        export_authors_state_dict(model)


def test_layouts_of_an_export() -> None:
    with pytest.raises(InputError, match="layout must be 'package' or 'released', got 'timm'"):
        export_authors_state_dict(create_model("WaveMix-Lite-8/1", 5), layout="timm")  # type: ignore[arg-type]
