"""The multi-level 2D discrete wavelet transform of Eq. 2, and its inverse.

Haar, the paper's wavelet, is sums and differences of strided slices: no convolution, no parameters, any precision, and
it compiles and exports. The other families (Table 13) go through `pytorch_wavelets`, in float32, with periodization, so
that every level halves the sides exactly. A side that is odd is first lengthened by repeating its last sample, as
PyWavelets does in its "periodization" mode; both transforms equal PyWavelets in that mode.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache, partial
from importlib import import_module
from importlib.resources import files
from types import ModuleType
from typing import IO, Any

import torch
from torch import Tensor

from wavemix_pl.errors import InputError

HAAR = ("haar", "db1")


def dwt2(x: Tensor, level: int = 1, wavelet: str = "haar") -> list[Tensor]:
    """Multi-level 2D-DWT: x_1 ... x_L of Eq. 2, from one pyramid.

    Args:
        x: (B, C, H, W), of any floating type.
        level: Number of levels L.
        wavelet: "haar", or any discrete wavelet that PyWavelets knows.

    Returns:
        L tensors, finest first. Number l has shape (B, 4C, ceil(H / 2^l), ceil(W / 2^l)): first the C approximations
        (LL), then for each channel in turn its three details LH, HL, HH (PyWavelets' cH, cV, cD). The authors'
        published weights assume this order.

    >>> [tuple(subbands.shape) for subbands in dwt2(torch.ones(1, 3, 8, 6), level=2)]
    [(1, 12, 4, 3), (1, 12, 2, 2)]
    """
    if level < 1:
        raise InputError(f"level must be at least 1, got {level}")
    return decompose(x, [_haar if wavelet in HAAR else partial(_filter_bank, wavelet=wavelet)] * level)


def decompose(x: Tensor, transforms: Iterable[Callable[[Tensor], tuple[Tensor, Tensor]]]) -> list[Tensor]:
    """One pyramid by any transforms, finest first, laid out as `dwt2` says.

    Args:
        x: (B, C, H, W).
        transforms: One for each level, from a map with even sides to its approximation (B, C, H/2, W/2), which the next
            level takes, and its details (B, 3C, H/2, W/2).
    """
    pyramid = []
    for transform in transforms:
        x, details = transform(even(x))
        pyramid.append(torch.cat((x, details), dim=1))
    return pyramid


def idwt2(pyramid: list[Tensor], wavelet: str = "haar", size: tuple[int, int] | None = None) -> Tensor:
    """Inverse of `dwt2`.

    Args:
        pyramid: What `dwt2` returned; of the finer levels only the details are read.
        wavelet: The wavelet of the transform.
        size: (H, W) of the original, needed only where a side was odd; without it the result may have one more row
            or column, a repetition of the last.

    Returns:
        (B, C, H, W).
    """
    channels = pyramid[-1].shape[1] // 4
    x = pyramid[-1][:, :channels]
    for subbands in reversed(pyramid):
        x = x[..., : subbands.shape[-2], : subbands.shape[-1]]
        details = subbands[:, channels:]
        x = _inverse_haar(x, details) if wavelet in HAAR else _inverse_filter_bank(x, details, wavelet)
    return x if size is None else x[..., : size[0], : size[1]]


def fold_haar(weight: Tensor) -> Tensor:
    """One level of Haar and a 1x1 convolution behind it as one convolution, at no more products than the second alone.

    Args:
        weight: (O, 4C, 1, 1), for sub-bands in the order of `dwt2`.

    Returns:
        Kernel (O, C, 2, 2) of a convolution of stride 2. The images that it sees need even sides: see `even`.
    """
    channels = weight.shape[1] // 4
    approximation, details = weight.view(-1, 4 * channels).split([channels, 3 * channels], dim=1)
    with _no_autocast(weight.device):  # weights are folded in their own precision
        subbands = torch.cat((approximation[:, None], details.view(-1, channels, 3).mT), dim=1)
        pixels = _haar_matrix(weight.device, weight.dtype) @ subbands  # (O, 4, C)
    return pixels.mT.contiguous().view(-1, channels, 2, 2)  # channels last, it would make maps channels last


@lru_cache(maxsize=64)
def _haar_matrix(device: torch.device, dtype: torch.dtype) -> Tensor:
    """(4, 4): what each pixel of a cell of 2x2 gives to each of its four sub-bands."""
    with torch.inference_mode(False):  # as it is kept beyond this call
        pixels = torch.eye(4, device=device, dtype=dtype).view(4, 1, 2, 2)
        return dwt2(pixels)[0].flatten(1)


def crop(x: Tensor, like: Tensor) -> Tensor:
    """Drops the rows and columns of `x` beyond the size of `like`."""
    return x[..., : like.shape[-2], : like.shape[-1]]


def even(x: Tensor) -> Tensor:
    """Repeats the last row or column where a side is odd."""
    if x.shape[-2] % 2:
        x = torch.cat((x, x[..., -1:, :]), dim=-2)
    if x.shape[-1] % 2:
        x = torch.cat((x, x[..., -1:]), dim=-1)
    return x


def _haar(x: Tensor) -> tuple[Tensor, Tensor]:
    """One level: approximation (B, C, H/2, W/2) and details (B, 3C, H/2, W/2)."""
    top, bottom = x[..., 0::2, :], x[..., 1::2, :]
    low, high = top + bottom, top - bottom
    low_left, low_right, high_left, high_right = low[..., 0::2], low[..., 1::2], high[..., 0::2], high[..., 1::2]
    details = torch.stack((high_left + high_right, low_left - low_right, high_left - high_right), dim=2)
    return (low_left + low_right) / 2, details.flatten(1, 2) / 2


def _inverse_haar(approximation: Tensor, details: Tensor) -> Tensor:
    lh, hl, hh = details.unflatten(1, (-1, 3)).unbind(2)
    top, bottom = approximation + lh, approximation - lh
    top_sign, bottom_sign = hl + hh, hl - hh
    rows = [
        torch.stack((half + sign, half - sign), dim=-1).flatten(-2)
        for half, sign in ((top, top_sign), (bottom, bottom_sign))
    ]
    return torch.stack(rows, dim=-2).flatten(-3, -2) / 2


def _filter_bank(x: Tensor, wavelet: str) -> tuple[Tensor, Tensor]:
    """One level of any wavelet, as `_haar`."""
    height, width = x.shape[-2] // 2, x.shape[-1] // 2
    with _no_autocast(x.device):  # DWTForward's backward fails under autocast
        transform = _transform("DWTForward", wavelet, x.device, _precision(x))
        approximation, (details,) = transform(_tile(x.to(_precision(x)), transform.h0_col.numel()))
    return approximation[..., :height, :width].to(x.dtype), details[..., :height, :width].flatten(1, 2).to(x.dtype)


def _inverse_filter_bank(approximation: Tensor, details: Tensor, wavelet: str) -> Tensor:
    height, width = 2 * approximation.shape[-2], 2 * approximation.shape[-1]
    dtype = _precision(approximation)
    with _no_autocast(details.device):
        transform = _transform("DWTInverse", wavelet, details.device, dtype)
        taps = transform.g0_col.numel()
        bands = _tile(details.to(dtype), taps).unflatten(1, (-1, 3))
        x = transform((_tile(approximation.to(dtype), taps), [bands]))
    out: Tensor = x[..., :height, :width].to(approximation.dtype)
    return out


def _no_autocast(device: torch.device) -> AbstractContextManager[Any]:
    # the meta device, on which operations are counted, has no autocast
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def _precision(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _tile(x: Tensor, taps: int) -> Tensor:
    """Repeats a signal that is shorter than the filter: pytorch_wavelets wraps around once only."""
    rows, columns = -(-taps // x.shape[-2]), -(-taps // x.shape[-1])
    return x.repeat(1, 1, rows, columns) if rows > 1 or columns > 1 else x


@lru_cache(maxsize=64)
def _transform(kind: str, wavelet: str, device: torch.device, dtype: torch.dtype) -> Any:
    # Kept beyond this call: so neither tensors of an inference mode, nor on the device that is the default just now.
    with torch.inference_mode(False), torch.device("cpu"):
        return getattr(_pytorch_wavelets(), kind)(wave=wavelet, mode="periodization").to(device, dtype)


def _pytorch_wavelets() -> ModuleType:
    """Imports pytorch_wavelets without setuptools.

    Release 1.3.0 asks for `pkg_resources`, which setuptools deprecated in 81 and removed in 82, to find data files of
    a transform that is not used here. A stand-in with the one function that it imports serves as well.
    """
    if "pytorch_wavelets" not in sys.modules and "pkg_resources" not in sys.modules:
        stand_in = ModuleType("pkg_resources")
        stand_in.resource_stream = _resource_stream  # type: ignore[attr-defined]  # a module made by hand
        sys.modules["pkg_resources"] = stand_in
        try:
            import_module("pytorch_wavelets")
        finally:
            del sys.modules["pkg_resources"]
    return import_module("pytorch_wavelets")


def _resource_stream(package: str, name: str) -> IO[bytes]:
    return files(package).joinpath(name).open("rb")
