"""Token mixers and upsamplers by name: the paper's own, and those that it tried beside them.

A mixer turns the reduced map (B, C/4, H, W) into the sub-bands that the block's paths take, finest first, and says by
which factor each path must enlarge its map again. An upsampler is made from (channels in, channels out, factor).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from wavemix_pl.models.wavelets import dwt2, idwt2


class DWT(nn.Module):
    """The paper's token mixer (Eq. 2): every level of one pyramid.

    Attributes:
        factors: Enlargement that each path owes, finest first.
    """

    def __init__(self, level: int, wavelet: str) -> None:
        super().__init__()
        self.level, self.wavelet = level, wavelet
        self.factors = [2] * level

    def forward(self, reduced: Tensor) -> list[Tensor]:
        return dwt2(reduced, self.level, self.wavelet)


class SingleLevelDWT(DWT):
    """Level L alone, the finer ones dropped (Table 14): one path, enlarged by 2^L at once."""

    def __init__(self, level: int, wavelet: str) -> None:
        super().__init__(level, wavelet)
        self.factors = [2**level]

    def forward(self, reduced: Tensor) -> list[Tensor]:
        return super().forward(reduced)[-1:]


class Deconv(nn.ConvTranspose2d):
    """The paper's upsampler: transposed convolution, kernel 4, stride 2, padding 1 for the usual factor 2.

    For another factor the kernel is factor + 2: with it the parameter counts of Table 14 are met exactly.
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


MIXERS: dict[str, Callable[[int, str], DWT]] = {"dwt": DWT, "dwt-single": SingleLevelDWT}
UPSAMPLERS: dict[str, type[Deconv] | type[Bilinear] | type[InverseDWT]] = {
    "deconv": Deconv,
    "bilinear": Bilinear,
    "idwt": InverseDWT,
}
