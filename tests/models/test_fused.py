"""The fused form of a model gives the plain model's logits, whatever it is built from and whatever size it sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.models import give_statistics
from wavemix_pl import WaveMixSegmenter, create_model
from wavemix_pl.measurement import flops
from wavemix_pl.models.fused import FusedBlock, FusedClassifier
from wavemix_pl.models.merged_stem import MergedStem, Merging
from wavemix_pl.models.wavemix import WaveMixBlock


def model_with_statistics(name: str, **arguments: Any) -> Any:
    """A model whose batch norms have seen something."""
    torch.manual_seed(0)
    model = create_model(name, 5, **arguments)
    give_statistics(model)
    return model.eval()


def difference(model: nn.Module, fused: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> float:
    with torch.inference_mode():
        expected, found = model(images), fused(images)
    assert expected.shape == found.shape
    return float((expected - found).abs().max() / expected.abs().max().clamp_min(1))


OTHERS: list[dict[str, Any]] = [
    {},
    {"head_dim": 12},
    {"upsample": "bilinear"},
    {"upsample": "idwt"},
    {"wavelet": "db2"},
    {"mixer": "dwt-single"},
    {"ff": 20, "mult": 3},
    {"in_channels": 1},
]


@pytest.mark.parametrize("other", OTHERS, ids=str)
@pytest.mark.parametrize("task", ["classification", "segmentation"])
@pytest.mark.parametrize("level", [1, 2, 3, 4])
@pytest.mark.parametrize(("stem", "stride"), [("strided", 1), ("strided", 2), ("patchify", 1)])
def test_same_logits(stem: str, stride: int, level: int, task: Any, other: dict[str, Any]) -> None:
    for dim in (8, 16):
        model = model_with_statistics(f"WaveMix-{dim}/2 (level {level})", task=task, stem=stem, stride=stride, **other)
        fused = model.fuse()
        for size in ((32, 32), (29, 31), (7, 40), (13, 4)):
            images = torch.randn(2, other.get("in_channels", 3), *size)
            assert difference(model, fused, images) < 1e-5, (dim, size)


@pytest.mark.parametrize("task", ["classification", "segmentation"])
@pytest.mark.parametrize(
    ("mixer", "level"),
    [("none", 1), ("dft", 1), *((name, n) for name in ("random", "maxpool", "lifting") for n in (1, 3))],
)
def test_same_logits_of_other_mixers(mixer: str, level: int, task: Any) -> None:
    """Their blocks stay as they are; also the narrow ones, which with Haar would run on cells."""
    for dim in (8, 16):
        model = model_with_statistics(f"WaveMix-{dim}/2 (level {level})", task=task, mixer=mixer)
        fused = model.fuse()
        assert all(isinstance(block, WaveMixBlock) for block in fused.blocks)
        for size in ((32, 32), (29, 31), (7, 40)):
            assert difference(model, fused, torch.randn(2, 3, *size)) < 1e-5, (dim, size)


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(4, 70),
    columns=st.integers(4, 70),
    level=st.integers(1, 4),
    stem=st.sampled_from(["strided", "patchify"]),
    patch=st.integers(1, 5),
    stride=st.integers(1, 3),
    task=st.sampled_from(["classification", "segmentation"]),
)
def test_same_logits_at_any_size(**values: Any) -> None:
    rows, columns, patch = values.pop("rows"), values.pop("columns"), values.pop("patch")
    model = model_with_statistics(f"WaveMix-8/1 (level {values.pop('level')})", patch_size=min(patch, 4), **values)
    assert difference(model, model.fuse(), torch.randn(1, 3, rows, columns)) < 1e-5


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    stem=st.sampled_from(["strided", "patchify"]),
    patch=st.integers(1, 6),
    stride=st.integers(1, 3),
)
def test_merged_stem(rows: int, columns: int, stem: str, patch: int, stride: int) -> None:
    """Also where it would not be chosen, and up to the last pixel of the border."""
    plain = model_with_statistics("WaveMix-Lite-8/1", stem=stem, patch_size=patch, stride=stride).stem
    merging = Merging.of(plain)
    images = torch.randn(2, 3, rows + merging.kernel - 1, columns + merging.kernel - 1)
    assert difference(plain, lambda images: merging.run(images, *merging.weights()), images) < 1e-5


@pytest.mark.parametrize(
    ("arguments", "size", "pays"),
    [
        ({"stem": "patchify", "name": "WaveMix-192/1 (level 3)"}, 224, True),
        ({"stem": "patchify", "name": "WaveMix-192/1 (level 3)"}, 32, False),  # all border
        ({"name": "WaveMix-Lite-144/1"}, 32, True),
        ({"name": "WaveMix-Lite-8/1"}, 224, False),  # nothing saved
    ],
)
def test_where_merging_pays(arguments: dict[str, Any], size: int, pays: bool) -> None:
    stem = model_with_statistics(**arguments).stem
    assert Merging.of(stem).pays(size, size) == pays
    image = torch.randn(1, 3, size, size)
    with torch.inference_mode():
        stem_for_inference = MergedStem(stem).float()
        plain, merged = flops(lambda: stem(image)), flops(lambda: stem_for_inference(image))
    assert merged < 0.75 * plain if pays else merged == plain


def test_features_are_those_of_the_plain_model() -> None:
    model = model_with_statistics("WaveMix-Lite-8/2")
    images = torch.randn(2, 3, 20, 24)
    torch.testing.assert_close(model.fuse().forward_features(images), model.forward_features(images))


def test_what_is_made_faster() -> None:
    """So that an equal model is not merely a copy."""
    classifier = model_with_statistics("WaveMix-32/2 (level 2)", stem="patchify")
    fused = classifier.fuse()
    assert isinstance(fused, FusedClassifier)
    assert isinstance(fused.stem, MergedStem)
    assert all(isinstance(block, FusedBlock) for block in fused.blocks)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.blocks.modules())
    images = torch.randn(2, 3, 128, 128)
    with torch.inference_mode():
        assert flops(lambda: fused(images)) < 0.6 * flops(lambda: classifier(images))
    assert model_with_statistics("WaveMix-Lite-8/2").fuse().cells is not None
    assert model_with_statistics("WaveMix-Lite-16/2").fuse().cells is None
    segmenter = model_with_statistics("WaveMix-64/1 (level 2)", task="segmentation").fuse()
    assert isinstance(segmenter, WaveMixSegmenter)
    assert isinstance(segmenter.stem, MergedStem)
    assert isinstance(segmenter.head[2], nn.Identity)


@pytest.mark.parametrize("task", ["classification", "segmentation"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_precision_is_the_models(task: Any, dtype: torch.dtype) -> None:
    model = model_with_statistics("WaveMix-8/2 (level 2)", task=task).to(dtype)
    fused = model.fuse()
    assert {parameter.dtype for parameter in fused.parameters()} == {dtype}
    limit = 1e-12 if dtype == torch.float64 else 0.1
    assert difference(model, fused, torch.randn(2, 3, 32, 32, dtype=dtype)) < limit


def test_runs_under_autocast() -> None:
    model = model_with_statistics("WaveMix-8/2 (level 2)")
    with torch.autocast("cpu", torch.bfloat16):
        assert difference(model, model.fuse(), torch.randn(2, 3, 32, 32)) < 0.1


def test_the_model_stays_as_it_is() -> None:
    model = model_with_statistics("WaveMix-8/2 (level 2)").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fused = model.fuse()
    fused(torch.randn(2, 3, 16, 16))
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    with torch.no_grad():
        fused.linear.weight.zero_()
    assert model.head.linear.weight.any()


def test_gradients_of_images_flow() -> None:
    """For saliency maps: what is done in place is undone rightly in the backward pass."""
    model = model_with_statistics("WaveMix-16/2 (level 2)", stem="patchify")
    images = torch.randn(1, 3, 32, 32, requires_grad=True)
    gradients = [torch.autograd.grad(form(images).sum(), images)[0] for form in (model, model.fuse())]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)
