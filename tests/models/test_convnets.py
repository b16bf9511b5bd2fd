"""The small convolutional peers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from wavemix_pl.errors import InputError
from wavemix_pl.models.baselines import build_model


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_unet_has_the_parameters_of_the_well_known_one() -> None:
    """31,037,698: the most used U-Net in PyTorch (milesial's), 64 channels wide, of 3 channels and 2 classes."""
    with torch.device("meta"):
        assert count(build_model("U-Net-64/4", 2, "segmentation", {})) == 31_037_698


@pytest.mark.parametrize("size", [(32, 32), (29, 45)])
def test_unet_gives_logits_at_the_size_of_the_images(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = build_model("U-Net-4/3", 5, "segmentation", {"in_channels": 1}).eval()
    images = torch.randn(2, 1, *size, requires_grad=True)
    logits = model(images)
    assert logits.shape == (2, 5, *size)
    logits[0, :, 16, 16].sum().backward()
    assert images.grad is not None
    assert not images.grad[1].any()
    rows = images.grad[0, 0].any(dim=1).nonzero()
    assert rows.max() - rows.min() > 15  # the uppermost convolutions see 9


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        # convolutions, batch norms, linear layer
        ({}, 16 * 3 * 9 + 3 * 16 * 16 * 9 + 4 * 2 * 16 + 17 * 10),
        ({"separable": True, "in_channels": 1}, 16 * 9 + 3 * (16 * 9 + 16 * 16) + 7 * 2 * 16 + 17 * 10),
    ],
)
def test_cnn(overrides: dict[str, Any], expected: int) -> None:
    model = build_model("CNN-16/4", 10, "classification", overrides)
    assert count(model) == expected
    images = torch.randn(3, overrides.get("in_channels", 3), 28, 28)
    assert model(images).shape == (3, 10)
    assert nn.Sequential(*list(model.children())[:-3])(images).shape == (3, 16, 7, 7)


def test_a_cnn_of_one_convolution() -> None:
    with pytest.raises(InputError, match="at least two convolutions, got 1"):
        build_model("CNN-16/1", 10, "classification", {})
