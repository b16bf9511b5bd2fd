"""Token mixers and upsamplers by name: the paper's own, and those that it tried beside them (Section 4.6).

A mixer turns the reduced map (B, C, H, W) into the maps that the block's paths take, finest first. An upsampler is made
from (channels in, channels out, factor).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavemix_pl.models.wavelets import decompose, dwt2, idwt2


class TokenMixer(nn.Module):
    """What all mixers have: they are made from (channels of the reduced map, level, wavelet).

    Attributes:
        expansion: Channels that a path gets for each channel of the reduced map. The block reduces its width by as
            much, so that each path gets all of it. Paper: says so of the DWT, silent on the others; here: for all.
        factors: Enlargement that each path owes, finest first.
    """

    expansion = 4

    def __init__(self, channels: int, level: int, wavelet: str) -> None:
        super().__init__()
        self.level, self.wavelet = level, wavelet
        self.factors = [2] * level

    def forward(self, reduced: Tensor) -> list[Tensor]:
        raise NotImplementedError


class DWT(TokenMixer):
    """The paper's token mixer (Eq. 2): every level of one pyramid."""

    def forward(self, reduced: Tensor) -> list[Tensor]:
        return dwt2(reduced, self.level, self.wavelet)


class SingleLevelDWT(TokenMixer):
    """Level L alone, the finer ones dropped (Table 14): one path, enlarged by 2^L at once."""

    def __init__(self, channels: int, level: int, wavelet: str) -> None:
        super().__init__(channels, level, wavelet)
        self.factors = [2**level]

    def forward(self, reduced: Tensor) -> list[Tensor]:
        return dwt2(reduced, self.level, self.wavelet)[-1:]


class NoMixer(TokenMixer):
    """No transform: one path, at full resolution.

    Paper: silent on what stays; here: all other layers, the upsampler with factor 1.
    """

    expansion = 1

    def __init__(self, channels: int, level: int, wavelet: str) -> None:
        super().__init__(channels, level, wavelet)
        self.factors = [1]

    def forward(self, reduced: Tensor) -> list[Tensor]:
        return [reduced]


class DFT(NoMixer):
    """The real part of the 2D discrete Fourier transform, at full resolution.

    Paper: silent on the scale; here: orthonormal, as Haar is. In float32 at least: half precision has no transform for
    every size.
    """

    def forward(self, reduced: Tensor) -> list[Tensor]:
        precise = reduced.to(torch.promote_types(reduced.dtype, torch.float32))
        return [torch.fft.fft2(precise, norm="ortho").real.to(reduced.dtype)]


class MaxPool(TokenMixer):
    """2x2 max pooling, repeated: each level pools what the one before it gave.

    Paper: silent on more than one level; here: as in the DWT's pyramid. What is left over of an odd side is pooled
    alone, as if it had been repeated.
    """

    expansion = 1

    def forward(self, reduced: Tensor) -> list[Tensor]:
        pooled = [reduced]
        for _ in range(self.level):
            pooled.append(F.max_pool2d(pooled[-1], 2, ceil_mode=True))
        return pooled[1:]


class RandomFilters(TokenMixer):
    """Four random filters of 2x2 pixels and stride 2 in the place of Haar's, never trained.

    Paper: silent on their distribution; here: drawn once for a block, uniformly from those of norm 1, as Haar's have
    it, and the same for all channels and levels. The first one gives what the next level takes.
    """

    filters: Tensor

    def __init__(self, channels: int, level: int, wavelet: str) -> None:
        super().__init__(channels, level, wavelet)
        self.register_buffer("filters", F.normalize(torch.randn(4, 4)).view(4, 1, 2, 2))

    def forward(self, reduced: Tensor) -> list[Tensor]:
        return decompose(reduced, [self._filter] * self.level)

    def _filter(self, x: Tensor) -> tuple[Tensor, Tensor]:
        channels = x.shape[1]
        filtered = F.conv2d(x, self.filters.repeat(channels, 1, 1, 1), stride=2, groups=channels)
        approximation, *details = filtered.unflatten(1, (channels, 4)).unbind(2)
        return approximation, torch.stack(details, dim=2).flatten(1, 2)


class Lifting(TokenMixer):
    """Learnable wavelets by the lifting scheme of the paper's reference [82], which start as Haar's.

    Paper: silent on all but that; its reference: small networks with tanh that mix the channels, started at random, and
    two terms of the loss for them. Here: linear filters, as wavelets have, a pair for each channel, level and
    direction, and no further loss.
    """

    def __init__(self, channels: int, level: int, wavelet: str) -> None:
        super().__init__(channels, level, wavelet)
        self.levels = nn.ModuleList(_Lifting2d(channels) for _ in range(level))

    def forward(self, reduced: Tensor) -> list[Tensor]:
        return decompose(reduced, self.levels)


class _Lifting2d(nn.Module):
    """One level: along the columns, then both results along the rows with the same filters."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.vertical, self.horizontal = _Lifting1d(channels, -2), _Lifting1d(channels, -1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        low, high = self.vertical(x)
        (ll, hl), (lh, hh) = self.horizontal(low), self.horizontal(high)
        return ll / 2, torch.stack((lh, hl, 2 * hh), dim=2).flatten(1, 2)  # scaled as the orthonormal Haar


class _Lifting1d(nn.Module):
    """Split, update, predict along one dimension, in the order of reference [82].

    With even samples e and odd samples o: low = e + update * o, high = predict * low - o. Haar's low = e + o and
    high = (e + o) / 2 - o. The filters have three taps; beyond its ends a signal goes on with its first or last sample.
    """

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.update = nn.Parameter(torch.tensor((0.0, 1.0, 0.0)).repeat(channels, 1))
        self.predict = nn.Parameter(torch.tensor((0.0, 0.5, 0.0)).repeat(channels, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        even, odd = x.unflatten(self.dim, (-1, 2)).unbind(self.dim)
        low = even + self._filter(odd, self.update)
        return low, self._filter(low, self.predict) - odd

    def _filter(self, x: Tensor, taps: Tensor) -> Tensor:
        x = torch.cat((x.narrow(self.dim, 0, 1), x, x.narrow(self.dim, -1, 1)), self.dim)
        return F.conv2d(x, taps[:, None, :, None] if self.dim == -2 else taps[:, None, None, :], groups=len(taps))


class Deconv(nn.ConvTranspose2d):
    """The paper's upsampler: transposed convolution, kernel 4, stride 2, padding 1 for the usual factor 2.

    For another factor the kernel is factor + 2: with it the parameter counts of Table 14 are met exactly. Factor 1, of
    mixers that keep the resolution, gives a kernel of 3. Paper: silent on it; here: by the same rule.
    """

    def __init__(self, in_channels: int, out_channels: int, factor: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=factor + 2, stride=factor, padding=1)

    @staticmethod
    def input_width(ff: int, out_channels: int) -> int:
        return ff


class Bilinear(nn.Upsample):
    """Upsampling without parameters (Table 5's star). The MLP itself gives the path's channels."""

    def __init__(self, in_channels: int, out_channels: int, factor: int) -> None:
        super().__init__(scale_factor=factor, mode="bilinear", align_corners=False)

    @staticmethod
    def input_width(ff: int, out_channels: int) -> int:
        return out_channels


class InverseDWT(nn.Module):
    """Upsampling by the inverse Haar transform (Section 4.6): four channels become one of twice the sides."""

    def __init__(self, in_channels: int, out_channels: int, factor: int) -> None:
        super().__init__()

    @staticmethod
    def input_width(ff: int, out_channels: int) -> int:
        return 4 * out_channels

    def forward(self, x: Tensor) -> Tensor:
        return idwt2([x])


MIXERS: dict[str, type[TokenMixer]] = {
    "dwt": DWT,
    "dwt-single": SingleLevelDWT,
    "none": NoMixer,
    "dft": DFT,
    "random": RandomFilters,
    "maxpool": MaxPool,
    "lifting": Lifting,
}
UPSAMPLERS: dict[str, type[Deconv] | type[Bilinear] | type[InverseDWT]] = {
    "deconv": Deconv,
    "bilinear": Bilinear,
    "idwt": InverseDWT,
}
