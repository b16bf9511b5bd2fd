"""The peers of the paper."""

from __future__ import annotations

import pytest
import torch

from wavemix_pl.errors import InputError
from wavemix_pl.models.baselines import build_model

pytest.importorskip("timm", reason="comes with the extra [baselines]")


@pytest.mark.parametrize("size", [(32, 64), (30, 61)])
@pytest.mark.parametrize("patch_size", [4, 7])
def test_convmixer_gives_logits_at_the_size_of_the_images(size: tuple[int, int], patch_size: int) -> None:
    model = build_model("ConvMixer-16/2", 5, "segmentation", {"in_channels": 1, "patch_size": patch_size})
    logits = model(torch.randn(2, 1, *size))
    assert logits.shape == (2, 5, *size)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_backbone_is_timms() -> None:
    """Stem and blocks have as many parameters as timm's model of the same size without its classifier."""
    from timm.models.convmixer import ConvMixer

    model = build_model("ConvMixer-32/3", 19, "segmentation", {})
    backbone = sum(p.numel() for part in (model.stem, model.blocks) for p in part.parameters())
    assert backbone == sum(p.numel() for p in ConvMixer(32, 3, 7, 4, num_classes=0).parameters())


@pytest.mark.parametrize("name", ["ConvMixer-16/2", "mobilenetv3_small_050"])
def test_classifiers(name: str) -> None:
    model = build_model(name, 5, "classification", {"in_channels": 1})
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, 5)


def test_what_is_not_there() -> None:
    with pytest.raises(InputError, match="known for segmentation"):
        build_model("resnet50", 10, "segmentation", {})
    with pytest.raises(InputError, match="did you mean 'resnet50'"):
        build_model("resnet55", 10, "classification", {})
    with pytest.raises(InputError, match=r"resnet18.*level"):
        build_model("resnet18", 10, "classification", {"level": 2})
    with pytest.raises(InputError, match="'level' is no argument of ConvMixer"):
        build_model("ConvMixer-32/3", 10, "segmentation", {"level": 2})
