"""Scales, mirrors and windows at test time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wavemix_pl import create_model
from wavemix_pl.errors import InputError
from wavemix_pl.inference import TestTime, _starts, segment


def pointwise(images: torch.Tensor) -> torch.Tensor:
    """A model that sees single pixels only, so that windows and mirrors cannot change what it says."""
    return torch.cat((images, -images, images * 0.5), dim=1)


IMAGES = torch.randn(2, 1, 13, 17, generator=torch.Generator().manual_seed(0))


@given(side=st.integers(1, 60), window=st.integers(1, 70), overlap=st.floats(0, 0.95))
def test_windows_cover_all_and_stay_inside(side: int, window: int, overlap: float) -> None:
    starts = _starts(side, window, overlap)
    covered = {pixel for start in starts for pixel in range(start, min(start + window, side))}
    assert covered == set(range(side))
    assert all(start + window <= max(side, window) for start in starts)


@pytest.mark.parametrize("window", [None, (4, 5), (13, 17), (5, 40)])
@pytest.mark.parametrize("flip", [False, True])
def test_a_pointwise_model_says_the_same(window: tuple[int, int] | None, flip: bool) -> None:
    how = TestTime(flip=flip, window=window)
    expected = pointwise(IMAGES).softmax(1)
    torch.testing.assert_close(segment(pointwise, IMAGES, how).softmax(1), expected)


def test_mean_of_scales_and_mirrors() -> None:
    model = create_model("WaveMix-Lite-8/1", 3, task="segmentation", in_channels=1).eval()
    images = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        combined = segment(model, images, TestTime(scales=(1.0,), flip=True)).exp()
        expected = (model(images).softmax(1) + model(images.flip(-1)).flip(-1).softmax(1)) / 2
        torch.testing.assert_close(combined, expected)
        several = segment(model, images, TestTime(scales=(0.5, 1.0, 1.5))).exp()
    assert several.shape == (1, 3, 32, 32)
    torch.testing.assert_close(several.sum(1), torch.ones(1, 32, 32))


def test_plain_is_the_model_itself() -> None:
    assert torch.equal(segment(pointwise, IMAGES), pointwise(IMAGES))


@pytest.mark.parametrize("bad", [{"scales": ()}, {"scales": (0.0,)}, {"window": (0, 4)}, {"overlap": 1.0}])
def test_bad_values(bad: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(bad))):
        TestTime(**bad)  # type: ignore[arg-type]
