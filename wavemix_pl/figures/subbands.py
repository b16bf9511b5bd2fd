"""The sub-bands of a photograph, level by level (Eq. 2): what a WaveMix block's transform sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wavemix_pl.errors import InputError
from wavemix_pl.models.wavelets import dwt2
from wavemix_pl.pictures import new_figure, show

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = ("LL", "LH", "HL", "HH")


def photograph(path: str | None = None) -> Tensor:
    """A grey photograph (1, H, W), 0 to 1.

    Args:
        path: Of an image file. Default: the cameraman that comes with PyWavelets, 512x512, CC0 by Lav Varshney.

    Raises:
        InputError: The file cannot be read.
    """
    if path is None:
        import pywt.data

        return torch.from_numpy(pywt.data.camera())[None].float() / 255
    from wavemix_pl.data.image import open_pixels  # imports lightning, which takes seconds

    return open_pixels(path, "L", upright=True).float() / 255


def subbands(image: Tensor, level: int = 3, wavelet: str = "haar") -> list[dict[str, Tensor]]:
    """The four sub-bands of each level, finest first, by their names.

    Args:
        image: (1, H, W) or (H, W).
        level: Number of levels.
        wavelet: As in `dwt2`.

    Returns:
        For level l a dict of LL, LH, HL, HH, each (H / 2^l, W / 2^l), rounded up.

    Raises:
        InputError: The image is too small to be halved so often.
    """
    image = image.squeeze(0) if image.ndim == 3 else image
    height, width = image.shape
    if min(height, width) < 2**level:
        raise InputError(f"image {height}x{width} is too small for {level} levels: each side needs {2**level} pixels")
    return [dict(zip(NAMES, bands[0], strict=True)) for bands in dwt2(image[None, None], level, wavelet)]


def draw_subbands(image: Tensor, level: int = 3, wavelet: str = "haar") -> Figure:
    """The photograph, and beside it the sub-bands of each level with their share of its energy.

    The details (LH, HL, HH) of a level share a scale, on which grey is zero.

    Args:
        image: (1, H, W), 0 to 1.
        level: Number of levels.
        wavelet: As in `dwt2`.

    Raises:
        InputError: As of `subbands`.
    """
    pyramid = subbands(image, level, wavelet)
    height, width = image.shape[-2:]
    row, title = 1.7 * height / width, 0.25  # inches
    left = (level * row + (level - 1) * title) * width / height  # as high as all levels together
    figure = new_figure(left + 4 * 1.75 + 0.1, level * (row + title) + 0.35)
    figure.suptitle(f"Sub-bands ({wavelet.capitalize()}), and their share of the photograph's energy", fontsize=10)
    cells = figure.add_gridspec(level, 5, width_ratios=[left, *4 * [1.7]])
    whole = figure.add_subplot(cells[:, 0])
    show(whole, image)
    whole.set_title(f"photograph, {height}x{width}", fontsize=8, pad=3)
    energy = float(image.double().square().sum())
    for i, bands in enumerate(pyramid):
        details = torch.stack([bands[name] for name in NAMES[1:]])
        scale = float(details.abs().flatten().quantile(0.99)) if details.numel() < 2**24 else float(details.abs().max())
        for j, name in enumerate(NAMES):
            axes = figure.add_subplot(cells[i, 1 + j])
            band = bands[name]
            low, high = (0.0, 2.0 ** (i + 1)) if name == "LL" else (-scale, scale)
            show(axes, band, cmap="gray", vmin=low, vmax=max(high, 1e-6))
            share = float(band.double().square().sum()) / max(energy, 1e-12)
            axes.set_title(f"{name}$_{i + 1}$  {100 * share:.3g}%", fontsize=8, pad=3)
    return figure
