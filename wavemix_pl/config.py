"""What a WaveMix model is made of, and the paper's notation for it (Section 4.1, Appendix A)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from wavemix_pl.errors import InputError

Stem = Literal["strided", "patchify"]
Mixer = Literal["dwt", "dwt-single", "none", "dft", "random", "maxpool", "lifting"]
Upsample = Literal["deconv", "bilinear", "idwt"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "stem": get_args(Stem),
    "mixer": get_args(Mixer),
    "upsample": get_args(Upsample),
}
_POSITIVE = ("dim", "depth", "level", "ff", "mult", "in_channels", "stride", "patch_size")
_NAME = re.compile(
    r"\s*wavemix(?P<lite>-lite)?-(?P<dim>\d+)/(?P<depth>\d+)\s*(?:\((?P<options>[^()]*)\))?", re.IGNORECASE
)
_MOST_LEVELS = 12  # each doubles the numbers as well: many more, and they leave their range
_OPTION = re.compile(r"(?P<key>level|ff|mul)\s*(?P<value>\d+)|(?P<levels>\d+)\s*level", re.IGNORECASE)


@dataclass(frozen=True)
class WaveMixConfig:
    """A WaveMix architecture: all that its parameters and its forward pass depend on, but for the number of classes.

    Attributes:
        dim: Embedding dimension C, divisible by 4.
        depth: Number of WaveMix blocks N.
        level: Number of DWT levels L; 1 is WaveMix-Lite.
        ff: Channels between MLP and transposed convolution; None stands for `dim` and is replaced by it.
        mult: Expansion inside the MLP, as a multiple of `dim` ("mul").
        in_channels: Channels of the images.
        stem: "strided" for small images and segmentation, "patchify" for large images (Section 4.2).
        stride: Of each of the strided stem's two convolutions; not used by "patchify".
        patch_size: Side of the patchify stem's patches in pixels; not used by "strided".
        dropout: Probability inside the MLP. Paper: silent; published code: 0.5 (0 in its segmenter); here: 0.5.
        wavelet: "haar", or any discrete wavelet that PyWavelets knows (Table 13); of mixers "dwt" and "dwt-single".
        mixer: "dwt" is the paper's pyramid; "dwt-single" keeps its level L alone (Table 14). In its place, as in
            Section 4.6: "none", the real part of the Fourier transform ("dft"), "random" filters, 2x2 max pooling
            ("maxpool"), learnable wavelets ("lifting").
        upsample: "deconv" is the paper's transposed convolution; "bilinear" and "idwt" have no parameters (Table 5).
        head_dim: Of a classifier: channels of the optional 1x1 channel-mixing layer before pooling (Section 3.1), or
            None for no layer. Of a segmenter: channels between the head's transposed convolutions, or None for dim / 2.

    Raises:
        InputError: A value that no model can be built from, with the name of its field.
    """

    dim: int
    depth: int
    level: int = 1
    ff: int = None  # type: ignore[assignment]  # None only until __post_init__ has put `dim` there
    mult: int = 2
    in_channels: int = 3
    stem: Stem = "strided"
    stride: int = 1
    patch_size: int = 4
    dropout: float = 0.5
    wavelet: str = "haar"
    mixer: Mixer = "dwt"
    upsample: Upsample = "deconv"
    head_dim: int | None = None

    def __post_init__(self) -> None:
        if self.ff is None:
            object.__setattr__(self, "ff", self.dim)
        for name in (*_POSITIVE, *(("head_dim",) if self.head_dim is not None else ())):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise InputError(f"{name} must be a whole number of at least 1, got {value!r}")
        if self.level > _MOST_LEVELS:
            raise InputError(f"level must be at most {_MOST_LEVELS}, which halve 4096 tokens to one, got {self.level}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise InputError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        if self.dim % 4:
            raise InputError(f"dim must be divisible by 4 (four sub-bands make up the width), got {self.dim}")
        if not (isinstance(self.dropout, (int, float)) and 0 <= self.dropout < 1):
            raise InputError(f"dropout must be at least 0 and below 1, got {self.dropout!r}")
        if self.upsample != "deconv" and self.ff != self.dim:
            raise InputError(
                f"ff is the width before the transposed convolution; upsample={self.upsample!r} has none: leave ff out"
            )
        self._check_mixer()
        _check_wavelet(self.wavelet)

    def _check_mixer(self) -> None:
        """Refuses what does not go with the mixer."""
        factor = {"none": 1, "dft": 1, "dwt-single": 2**self.level}.get(self.mixer, 2)
        if factor == 1 and self.level > 1:
            raise InputError(f"mixer={self.mixer!r} has no levels: level must be 1, got {self.level}")
        if self.upsample == "idwt" and factor != 2:
            raise InputError(
                f"upsample='idwt' doubles the sides, mixer={self.mixer!r} needs a factor of {factor}: use 'deconv'"
            )
        if self.wavelet != "haar" and self.mixer not in ("dwt", "dwt-single"):
            raise InputError(f"wavelet is of mixer 'dwt' and 'dwt-single', got mixer={self.mixer!r}: leave it out")

    @classmethod
    def from_notation(cls, notation: str, **overrides: Any) -> WaveMixConfig:
        """Reads a model name as the paper's tables print it.

        Args:
            notation: "WaveMix-Lite-DIM/DEPTH", or "WaveMix-DIM/DEPTH (level L)", with "ff F" and "mul M" in the
                brackets where they differ from the defaults; "(4 level)" and any case are read as well.
            overrides: Any other field, or one of the notation's to replace.

        Raises:
            InputError: A part that cannot be read (it is named), or a value out of range.

        >>> WaveMixConfig.from_notation("WaveMix-256/16 (4 level)").notation
        'WaveMix-256/16 (level 4)'
        >>> WaveMixConfig.from_notation("Wavemix-Lite-256/16 (mul 3, ff 512)", stride=2).notation
        'WaveMix-Lite-256/16 (ff 512, mul 3)'
        """
        _refuse_unknown_fields(overrides)
        values: dict[str, Any] = {**_parse(notation), **overrides}
        if "level" not in values:
            raise InputError(f"model {notation!r}: the level is missing: add '(level L)', or write 'WaveMix-Lite'")
        return cls(**values)

    @property
    def notation(self) -> str:
        """The paper's name of the model. It tells dim, depth, level, ff and mul; the other fields have no notation."""
        options = [] if self.level == 1 else [f"level {self.level}"]
        options += [] if self.ff == self.dim else [f"ff {self.ff}"]
        options += [] if self.mult == 2 else [f"mul {self.mult}"]
        name = f"WaveMix{'-Lite' if self.level == 1 else ''}-{self.dim}/{self.depth}"
        return f"{name} ({', '.join(options)})" if options else name

    def replace(self, **changes: Any) -> WaveMixConfig:
        """A copy with some fields changed; `ff` follows `dim` where it was `dim` before."""
        if self.ff == self.dim:
            changes = {"ff": None, **changes}
        _refuse_unknown_fields(changes)
        return replace(self, **changes)


def _refuse_unknown_fields(names: Iterable[str]) -> None:
    known = [field.name for field in fields(WaveMixConfig)]
    for name in names:
        if name not in known:
            raise InputError(f"{name!r} is no field of a WaveMix model; known are {', '.join(known)}")


def _parse(notation: str) -> dict[str, int]:
    """The fields that a name states."""
    match = _NAME.match(notation)
    if not match:
        raise InputError(
            f"model {notation!r}: expected a name such as 'WaveMix-Lite-8/5' or 'WaveMix-192/16 (level 3)'"
        )
    rest = notation[match.end() :].strip()
    if rest.startswith(("*", "†")):
        raise InputError(
            f"model {notation!r}: {rest!r} is a footnote mark of the paper, no part of the name: leave it out "
            "(Table 5's * is upsample='bilinear', Table 7's is pre-training)"
        )
    if rest:
        raise InputError(f"model {notation!r}: cannot read {rest!r}")
    values = {"dim": int(match["dim"]), "depth": int(match["depth"])}
    for option in match["options"].split(",") if match["options"] is not None else []:
        found = _OPTION.fullmatch(option.strip())
        if not found:
            raise InputError(
                f"model {notation!r}: cannot read {option.strip()!r}; known are 'level L', 'ff F', 'mul M'"
            )
        key = "level" if found["levels"] else {"mul": "mult"}.get(found["key"].lower(), found["key"].lower())
        if key in values:
            raise InputError(f"model {notation!r}: {option.strip()!r} states {key} a second time")
        values[key] = int(found["levels"] or found["value"])
    if match["lite"] and values.setdefault("level", 1) != 1:
        raise InputError(f"model {notation!r}: Lite means level 1, the brackets say level {values['level']}")
    return values


def _check_wavelet(wavelet: str) -> None:
    """Refuses names that PyWavelets does not know; Haar is ours and needs no PyWavelets."""
    if wavelet in ("haar", "db1"):
        return
    import pywt

    if wavelet not in pywt.wavelist(kind="discrete"):
        raise InputError(
            f"wavelet must be 'haar' or a discrete wavelet of PyWavelets, such as 'db2', 'bior1.3', 'coif1' or 'sym2'; "
            f"got {wavelet!r}"
        )
