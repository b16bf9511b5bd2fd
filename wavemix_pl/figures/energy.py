"""Energy compaction: how few coefficients hold how much of a map, for Haar, Fourier and random filters (Section 4.6).

The paper tells that neither the Fourier transform nor random filters in Haar's place reach its accuracy, and speaks of
the sparseness of edges. Here sparseness is measured. All transforms are orthonormal, so that the squares of the
coefficients add up to the same energy, and a share of it means the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from wavemix_pl.errors import InputError
from wavemix_pl.figures.receptive_field import layer_maps
from wavemix_pl.models.wavelets import decompose, dwt2
from wavemix_pl.pictures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHARES = tuple(10 ** (exponent / 10) / 100 for exponent in range(-10, 21))  # 0.1% to 100%

_FLAT = 1e-9  # what is left of a constant by rounding
_COLORS = {"Haar": "#1f77b4", "Fourier": "#d9772b", "random": "#2a9d4a", "pixels": "#888888"}


def haar_coefficients(maps: Tensor, level: int) -> Tensor:
    """(B, C, H, W) -> (B, C, H * W): the details of all levels and the last approximation.

    The sides must divide by 2^level.
    """
    return _coefficients(dwt2(maps, level))


def random_coefficients(maps: Tensor, level: int, generator: torch.Generator | None = None) -> Tensor:
    """As `haar_coefficients`, with four random orthonormal filters of 2x2 pixels in Haar's place.

    The block's mixer "random" has filters of norm 1 that are not orthogonal; with them the energy would depend on the
    map.
    """
    basis, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=generator))
    filters = basis.T.to(maps).view(4, 1, 2, 2)

    def transform(x: Tensor) -> tuple[Tensor, Tensor]:
        channels = x.shape[1]
        filtered = nn.functional.conv2d(x, filters.repeat(channels, 1, 1, 1), stride=2, groups=channels)
        bands = filtered.unflatten(1, (channels, 4))
        return bands[:, :, 0], bands[:, :, 1:].flatten(1, 2)

    return _coefficients(decompose(maps, [transform] * level))


def fourier_coefficients(maps: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, H * W): the discrete Hartley transform, the Fourier transform's real and orthonormal form.

    Real part minus imaginary part of the 2D DFT: as many real numbers as there are pixels, where the DFT of a real map
    has each of its complex numbers twice.
    """
    spectrum = torch.fft.fft2(maps, norm="ortho")
    hartley: Tensor = spectrum.real - spectrum.imag
    return hartley.flatten(2)


def _coefficients(pyramid: Sequence[Tensor]) -> Tensor:
    channels = pyramid[0].shape[1] // 4
    details = [bands[:, channels:].unflatten(1, (channels, 3)).flatten(2) for bands in pyramid]
    return torch.cat([pyramid[-1][:, :channels].flatten(2), *details], dim=2)


def compaction(coefficients: Tensor, shares: Sequence[float] = SHARES) -> Tensor:
    """The share of the energy that the largest coefficients hold, the mean over all maps that are not zero.

    Args:
        coefficients: (B, C, N).
        shares: Of the N coefficients that are kept; one coefficient at least.

    Returns:
        As many as `shares`.
    """
    energies = coefficients.double().square().flatten(0, 1).sort(dim=1, descending=True).values
    total = energies.sum(1, keepdim=True)
    held = energies.cumsum(1)[total[:, 0] > 0] / total[total[:, 0] > 0]
    count = coefficients.shape[-1]
    return held[:, [max(1, round(share * count)) - 1 for share in shares]].mean(0)


def curves(maps: Tensor, level: int, draws: int = 8, seed: int = 0) -> dict[str, Tensor]:
    """Compaction of maps (B, C, H, W) by each transform.

    The mean of each map is taken out first: it is one number, which says nothing of structure, and whoever stores it in
    one coefficient would begin far ahead. Maps are cropped to sides that divide by 2 as often as there are levels.

    Args:
        maps: (B, C, H, W).
        level: Of Haar and of the random filters; fewer where the maps are too small.
        draws: Of random filters.
        seed: Of them.

    Raises:
        InputError: Maps with a side of less than 2 pixels, or without any structure.
    """
    deepest = min(maps.shape[-2:]).bit_length() - 1
    if deepest < 1:
        raise InputError(f"maps of {maps.shape[-2]}x{maps.shape[-1]} cannot be halved: take larger images")
    level = min(level, deepest)
    rows, columns = (side // 2**level * 2**level for side in maps.shape[-2:])
    maps = maps[..., :rows, :columns].double()
    maps = maps - maps.mean((2, 3), keepdim=True)
    if not maps.abs().max() > _FLAT:
        raise InputError("all maps are constant: there is no energy to compact")
    rng = torch.Generator().manual_seed(seed)
    random = [compaction(random_coefficients(maps, level, rng)) for _ in range(draws)]
    most = min((side & -side).bit_length() - 1 for side in (rows, columns))  # so often both sides divide by 2
    levels = f"{level} level{'s' if level > 1 else ''}"
    return {
        f"Haar, {levels}": compaction(haar_coefficients(maps, level)),
        **({f"Haar, {most} levels": compaction(haar_coefficients(maps, most))} if most > level else {}),
        "Fourier": compaction(fourier_coefficients(maps)),
        f"random filters, {levels}": torch.stack(random).mean(0),
        "pixels": compaction(maps.flatten(2)),
    }


@torch.no_grad()
def learned_maps(model: nn.Module, images: Tensor) -> list[Tensor]:
    """What each block of a WaveMix gives to its transform (Eq. 1): the reduced maps (B, D/4, H', W')."""
    blocks: Any = model.blocks
    return layer_maps(model, [f"blocks.{i}.reduce" for i in range(len(blocks))], images)


def draw_energy(panels: Mapping[str, Mapping[str, Tensor]], shares: Sequence[float] = SHARES) -> Figure:
    """One panel for each kind of map: energy held against coefficients kept.

    Args:
        panels: Title -> name of a transform -> its `compaction`.
        shares: As they were asked for.
    """
    figure = new_figure(4.0 * len(panels) + 0.4, 4.3)
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    percent = [100 * share for share in shares]
    for axes, (title, of_transforms) in zip(grid, panels.items(), strict=True):
        for name, held in of_transforms.items():
            color = next(color for kind, color in _COLORS.items() if name.startswith(kind))
            again = any(line.get_color() == color for line in axes.lines)
            axes.plot(percent, [100 * float(value) for value in held], "--" if again else "-", label=name, color=color)
        axes.set(xscale="log", xlim=(percent[0], 100), ylim=(0, 102), xlabel="largest coefficients kept, %")
        axes.set_xticks([0.1, 1, 10, 100], labels=["0.1", "1", "10", "100"])
        axes.set_title(title, fontsize=9)
        axes.grid(visible=True, color="#8884")
        axes.legend(fontsize=8, frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.17))
    figure.axes[0].set_ylabel("energy held, %")
    return figure
