"""Energy compaction: all transforms keep the energy, and agree with PyWavelets and NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import pywt
import torch

from wavemix_pl import create_model
from wavemix_pl.errors import InputError
from wavemix_pl.figures.energy import (
    compaction,
    curves,
    draw_energy,
    fourier_coefficients,
    haar_coefficients,
    learned_maps,
    random_coefficients,
)
from wavemix_pl.figures.subbands import photograph


def maps() -> torch.Tensor:
    return torch.randn(2, 3, 16, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_parseval() -> None:
    x = maps()
    energy = x.square().sum((2, 3))
    for coefficients in (
        haar_coefficients(x, 3),
        random_coefficients(x, 3, torch.Generator().manual_seed(1)),
        fourier_coefficients(x),
    ):
        assert coefficients.shape == (2, 3, 16 * 24)
        assert torch.allclose(coefficients.square().sum(2), energy)


def test_haar_is_that_of_pywavelets() -> None:
    x = maps()
    ours = haar_coefficients(x, 3)[1, 2].square().sort().values
    array, _ = pywt.coeffs_to_array(pywt.wavedec2(x[1, 2].numpy(), "haar", level=3))
    assert np.allclose(ours.numpy(), np.sort(np.square(array), axis=None))


def test_fourier_is_that_of_numpy() -> None:
    """A pair of conjugate coefficients has the energy of the pair of real ones in its place."""
    x = maps()[0, 0]
    ours = fourier_coefficients(x[None, None])[0, 0].view(16, 24).square().numpy()
    theirs = np.abs(np.fft.fft2(x.numpy())) ** 2 / x.numel()
    mirror = np.ix_(-np.arange(16) % 16, -np.arange(24) % 24)
    assert np.allclose(ours + ours[mirror], theirs + theirs[mirror])


def test_compaction() -> None:
    coefficients = torch.tensor([[[3.0, 0, -4, 0], [0, 0, 0, 0], [1, 1, 1, 1]]])  # the second has no energy
    held = compaction(coefficients, (0.01, 0.25, 0.5, 1.0))
    assert held.tolist() == pytest.approx([(0.64 + 0.25) / 2, (0.64 + 0.25) / 2, (1 + 0.5) / 2, 1.0])


def test_curves_of_a_photograph() -> None:
    image = photograph()[None, :, ::4, ::4]
    of_transforms = {name.split(",")[0]: curve for name, curve in curves(image, 3).items() if "7 levels" not in name}
    assert all(bool(curve.diff().ge(-1e-12).all()) for curve in of_transforms.values())
    assert all(float(curve[-1]) == pytest.approx(1) for curve in of_transforms.values())
    at_10_percent = {name: float(curve[20]) for name, curve in of_transforms.items()}
    assert at_10_percent["Haar"] > at_10_percent["random filters"] > at_10_percent["pixels"]
    shifted = curves(image + 100, 3)
    assert torch.allclose(shifted["pixels"], of_transforms["pixels"], atol=1e-4)
    figure = draw_energy({"a": shifted, "b": curves(image[..., :28, :28], 1)})
    assert [axes.get_title() for axes in figure.axes] == ["a", "b"]
    assert [text.get_text() for text in figure.axes[1].get_legend().get_texts()] == [
        *("Haar, 1 level", "Haar, 2 levels", "Fourier", "random filters, 1 level", "pixels"),
    ]


def test_maps_without_structure() -> None:
    with pytest.raises(InputError, match="constant"):
        curves(torch.full((1, 1, 8, 8), 0.3), 1)
    with pytest.raises(InputError, match="1x8 cannot be halved"):
        curves(torch.rand(1, 1, 1, 8), 1)


def test_learned_maps() -> None:
    model = create_model("WaveMix-16/3 (level 2)", 3).eval()
    images = torch.randn(2, 3, 12, 12)
    found = learned_maps(model, images)
    assert [tuple(of_block.shape) for of_block in found] == [(2, 4, 12, 12)] * 3
    with torch.no_grad():
        before = model.forward_intermediates(images, [1])[0]
        assert torch.allclose(found[2], model.blocks[2].reduce(before))  # type: ignore[union-attr]
