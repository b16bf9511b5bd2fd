"""The transforms against PyWavelets and pytorch_wavelets."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest
import pywt
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from wavemix_pl.errors import InputError
from wavemix_pl.models.wavelets import dwt2, idwt2

# All of Table 13, with both names of Haar.
WAVELETS = [
    *("haar", "db1", "db2", "db3", "db4", "db5"),
    *("bior1.3", "bior1.5", "rbio1.3", "coif1", "coif2", "sym2", "sym3"),
]
ORTHOGONAL = [name for name in WAVELETS if not name.startswith(("bior", "rbio"))]
SIZES = [(16, 16), (7, 10), (13, 8), (5, 3), (2, 2), (1, 1), (1, 6)]
# Filters of the other families are float32, whatever the signal is.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}


def pywt_pyramid(x: Tensor, level: int, wavelet: str) -> list[np.ndarray]:
    """What PyWavelets makes of it, in our order of channels."""
    pyramid, approximation = [], x.double().numpy()
    for _ in range(level):
        approximation, details = pywt.dwt2(approximation, wavelet, mode="periodization", axes=(-2, -1))
        interleaved = np.stack(details, axis=2).reshape(x.shape[0], -1, *approximation.shape[2:])
        pyramid.append(np.concatenate((approximation, interleaved), axis=1))
    return pyramid


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("level", [1, 2, 3, 4])
@pytest.mark.parametrize("wavelet", WAVELETS)
def test_equals_pywavelets(wavelet: str, level: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(level)
    for size in SIZES:
        x = torch.randn(2, 3, *size, generator=generator).to(dtype)
        pyramid, expected = dwt2(x, level, wavelet), pywt_pyramid(x, level, wavelet)
        assert len(pyramid) == level
        for ours, theirs in zip(pyramid, expected, strict=True):
            assert ours.dtype == dtype
            assert ours.shape == theirs.shape
            scale = max(1.0, float(np.abs(theirs).max()))
            np.testing.assert_allclose(ours.double().numpy(), theirs, rtol=0, atol=TOLERANCE[dtype] * scale)


@pytest.mark.parametrize("wavelet", WAVELETS)
@pytest.mark.parametrize("level", [1, 3, 5])
def test_round_trip(wavelet: str, level: int) -> None:
    for size in SIZES:
        x = torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(idwt2(dwt2(x, level, wavelet), wavelet, size=size), x, rtol=0, atol=1e-5)


@pytest.mark.parametrize("wavelet", ORTHOGONAL)
def test_orthogonal_wavelets_keep_the_energy(wavelet: str) -> None:
    x = torch.randn(2, 3, 32, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pyramid = dwt2(x, 3, wavelet)
    details = sum(subbands[:, 3:].square().sum() for subbands in pyramid)
    assert float(details + pyramid[-1][:, :3].square().sum()) == pytest.approx(float(x.square().sum()), rel=1e-6)


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    level=st.integers(1, 5),
    wavelet=st.sampled_from(["haar", "db3", "bior1.5"]),
)
def test_any_size_comes_back(height: int, width: int, level: int, wavelet: str) -> None:
    x = torch.randn(1, 2, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(height * width))
    pyramid = dwt2(x, level, wavelet)
    for number, subbands in enumerate(pyramid, start=1):
        assert subbands.shape == (1, 8, -(-height // 2**number), -(-width // 2**number))
    torch.testing.assert_close(idwt2(pyramid, wavelet, size=(height, width)), x, rtol=0, atol=1e-5)


def test_haar_of_one_square_by_hand() -> None:
    (subbands,) = dwt2(torch.tensor([[[[1.0, 2.0], [3.0, 5.0]]]]))
    # LL: half the sum; LH: top minus bottom; HL: left minus right; HH: the diagonals.
    assert subbands.flatten().tolist() == [5.5, -2.5, -1.5, 0.5]


def test_haar_equals_pytorch_wavelets() -> None:
    """The package that the paper used; our Haar does without it."""
    from wavemix_pl.models.wavelets import _pytorch_wavelets

    x = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    low, highs = _pytorch_wavelets().DWTForward(J=3, wave="db1", mode="zero")(x)
    pyramid = dwt2(x, 3)
    torch.testing.assert_close(pyramid[-1][:, :3], low, rtol=0, atol=1e-6)
    for subbands, high in zip(pyramid, highs, strict=True):
        torch.testing.assert_close(subbands[:, 3:], high.flatten(1, 2), rtol=0, atol=1e-6)


@pytest.mark.parametrize("wavelet", ["haar", "db2", "bior1.3"])
def test_gradients(wavelet: str) -> None:
    x = torch.randn(1, 2, 5, 6, dtype=torch.float64, requires_grad=True, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(lambda x: tuple(dwt2(x, 2, wavelet)), x)
    assert torch.autograd.gradcheck(lambda x: idwt2([torch.cat((x, x), 1)], wavelet), x)


@pytest.mark.parametrize("wavelet", ["haar", "db2"])
def test_backward_under_autocast(wavelet: str) -> None:
    """pytorch_wavelets' own transform fails here."""
    x = torch.randn(1, 4, 8, 8, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        dwt2(torch.nn.functional.conv2d(x, torch.ones(4, 4, 1, 1)), 2, wavelet)[-1].sum().backward()
    assert x.grad is not None
    assert bool(x.grad.isfinite().all())


def test_other_wavelets_train_after_inference_mode() -> None:
    """What is kept between calls must be no inference tensor."""
    x = torch.randn(1, 2, 8, 8, requires_grad=True)
    with torch.inference_mode():
        dwt2(x, 1, "sym5")  # a wavelet of this test alone
    dwt2(x, 1, "sym5")[0].sum().backward()
    assert x.grad is not None


def test_haar_in_channels_last_memory_has_the_same_values() -> None:
    x = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(dwt2(x.to(memory_format=torch.channels_last), 2)[1], dwt2(x, 2)[1])


def test_level_zero_is_refused() -> None:
    with pytest.raises(InputError, match="level"):
        dwt2(torch.ones(1, 1, 2, 2), level=0)


def test_haar_imports_nothing_more_and_the_others_do_not_warn() -> None:
    """pytorch_wavelets asks for pkg_resources, which warns or is not there."""
    script = """
import sys, warnings
warnings.simplefilter("error")
import torch
from wavemix_pl import create_model
model = create_model("WaveMix-8/1 (level 2)", 3)
model(torch.ones(1, 3, 8, 8))
assert not {"pywt", "pytorch_wavelets", "pkg_resources"} & set(sys.modules)
warnings.filterwarnings("default", module="pywt|pytorch_wavelets|numpy")
create_model("WaveMix-8/1 (level 2)", 3, wavelet="db2")(torch.ones(1, 3, 8, 8))
assert "pytorch_wavelets" in sys.modules and "pkg_resources" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_pywavelets_itself_is_called_as_intended() -> None:
    """Guards the oracle: PyWavelets neither fails nor warns on levels beyond the signal."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pywt_pyramid(torch.ones(1, 1, 1, 1), 2, "db2")[1].shape == (1, 4, 1, 1)
