"""The paper's notation, and values that no model can be built from."""

from __future__ import annotations

import contextlib
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wavemix_pl import WaveMixConfig, create_model
from wavemix_pl.config import Mixer, Stem, Upsample
from wavemix_pl.errors import InputError
from wavemix_pl.models.mixers import MIXERS, UPSAMPLERS

# Every name of Tables 2-14, as printed, and (dim, depth, level, ff, mult).
PAPER_NAMES = {
    "WaveMix-256/16 (4 level)": (256, 16, 4, 256, 2),
    "WaveMix-128/8 (level 3)": (128, 8, 3, 128, 2),
    "WaveMix-Lite-192/16": (192, 16, 1, 192, 2),
    "WaveMix-192/16 (level 3)": (192, 16, 3, 192, 2),
    "WaveMix-Lite-8/10": (8, 10, 1, 8, 2),
    "WaveMix-Lite-8/5": (8, 5, 1, 8, 2),
    "WaveMix-Lite-32/7": (32, 7, 1, 32, 2),
    "WaveMix-Lite-64/6": (64, 6, 1, 64, 2),
    "WaveMix-Lite-128/8": (128, 8, 1, 128, 2),
    "WaveMix-Lite-128/20 (mul 3)": (128, 20, 1, 128, 3),
    "WaveMix-Lite-160/12": (160, 12, 1, 160, 2),
    "WaveMix-Lite-192/12": (192, 12, 1, 192, 2),
    "WaveMix-Lite-224/12": (224, 12, 1, 224, 2),
    "WaveMix-Lite-256/7 (ff 160)": (256, 7, 1, 160, 2),
    "WaveMix-Lite-256/7 (ff 160, mul 3)": (256, 7, 1, 160, 3),
    "WaveMix-Lite-256/7 (ff 192, mul 3)": (256, 7, 1, 192, 3),
    "WaveMix-Lite-256/12 (ff 160)": (256, 12, 1, 160, 2),
    "WaveMix-Lite-256/12 (ff 192)": (256, 12, 1, 192, 2),
    "WaveMix-Lite-256/12 (ff 224)": (256, 12, 1, 224, 2),
    "WaveMix-Lite-256/12": (256, 12, 1, 256, 2),
    "WaveMix-Lite-256/12 (ff 1024, mul 3)": (256, 12, 1, 1024, 3),
    "WaveMix-Lite-256/16 (ff 272, mul 3)": (256, 16, 1, 272, 3),
    "WaveMix-Lite-256/16 (ff 512, mul 3)": (256, 16, 1, 512, 3),
    "WaveMix-Lite-256/16 (ff 512, mul 4)": (256, 16, 1, 512, 4),
    "WaveMix-Lite-256/16 (ff 1024, mul 3)": (256, 16, 1, 1024, 3),
    "WaveMix-Lite-256/18 (ff 512, mul 3)": (256, 18, 1, 512, 3),
    "WaveMix-Lite-256/20 (mul 3)": (256, 20, 1, 256, 3),
    "WaveMix-Lite-256/20 (ff 512, mul 3)": (256, 20, 1, 512, 3),
    "WaveMix-Lite-272/16": (272, 16, 1, 272, 2),
    "WaveMix-Lite-288/16": (288, 16, 1, 288, 2),
    "WaveMix-Lite-304/16": (304, 16, 1, 304, 2),
    "WaveMix-Lite-320/16 (ff 512, mul 3)": (320, 16, 1, 512, 3),
    "WaveMix-Lite-512/12 (ff 1024, mul 3)": (512, 12, 1, 1024, 3),
    "WaveMix-Lite-256/7": (256, 7, 1, 256, 2),
    "WaveMix-Lite-256/14": (256, 14, 1, 256, 2),
    "WaveMix-Lite-256/16": (256, 16, 1, 256, 2),
    "WaveMix-Lite-256/17": (256, 17, 1, 256, 2),
    "WaveMix-Lite-256/18": (256, 18, 1, 256, 2),
    "WaveMix-256/16 (level 2)": (256, 16, 2, 256, 2),
    "WaveMix-256/16 (level 3)": (256, 16, 3, 256, 2),
    "WaveMix-256/15 (level 4)": (256, 15, 4, 256, 2),
    "WaveMix-256/17 (level 4)": (256, 17, 4, 256, 2),
    "WaveMix-Lite-128/7": (128, 7, 1, 128, 2),
    "WaveMix-Lite-112/16": (112, 16, 1, 112, 2),
    "WaveMix-Lite-128/16": (128, 16, 1, 128, 2),
    "WaveMix-240/12 (level 4)": (240, 12, 4, 240, 2),
    "WaveMix-Lite-144/15": (144, 15, 1, 144, 2),
    "WaveMix-Lite-320/8": (320, 8, 1, 320, 2),
    "WaveMix-Lite-256/10": (256, 10, 1, 256, 2),
    "WaveMix-244/12 (level 2)": (244, 12, 2, 244, 2),
    "WaveMix-192/16 (3 level)": (192, 16, 3, 192, 2),
    "WaveMix-224/12 (2 level)": (224, 12, 2, 224, 2),
    "WaveMix-240/12 (2 level)": (240, 12, 2, 240, 2),
    "WaveMix-208/12 (3 level)": (208, 12, 3, 208, 2),
    "WaveMix-224/12 (3 level)": (224, 12, 3, 224, 2),
    "WaveMix-240/12 (3 level)": (240, 12, 3, 240, 2),
    "WaveMix-Lite-16/7": (16, 7, 1, 16, 2),
    "WaveMix-Lite-64/7": (64, 7, 1, 64, 2),
    "WaveMix-Lite-144/7": (144, 7, 1, 144, 2),
    "Wavemix-Lite-160/13": (160, 13, 1, 160, 2),
    "WaveMix-Lite-224/20": (224, 20, 1, 224, 2),
}


@pytest.mark.parametrize(("name", "expected"), PAPER_NAMES.items())
def test_names_of_the_paper(name: str, expected: tuple[int, ...]) -> None:
    config = WaveMixConfig.from_notation(name)
    assert (config.dim, config.depth, config.level, config.ff, config.mult) == expected
    assert WaveMixConfig.from_notation(config.notation) == config


@given(
    dim=st.integers(1, 200).map(lambda quarter: 4 * quarter),
    depth=st.integers(1, 99),
    level=st.integers(1, 9),
    ff=st.none() | st.integers(1, 2000),
    mult=st.integers(1, 9),
)
def test_notation_round_trip(**fields: Any) -> None:
    config = WaveMixConfig(**fields)
    assert WaveMixConfig.from_notation(config.notation) == config
    assert WaveMixConfig.from_notation(f"  {config.notation.upper()} ").notation == config.notation


@given(st.text(max_size=40) | st.from_regex(r"wavemix(-lite)?-\d{1,4}/\d{1,3} ?\(.{0,12}\)", fullmatch=True))
def test_any_text_is_read_or_refused(text: str) -> None:
    config = None
    with contextlib.suppress(InputError):
        config = WaveMixConfig.from_notation(text)
    assert config is None or WaveMixConfig.from_notation(config.notation) == config


@pytest.mark.parametrize(
    ("text", "unread"),
    [
        ("ResNet-18", "ResNet-18"),
        ("WaveMix-256/16 (level 3) extra", "extra"),
        ("WaveMix-256/16 (lvl 3)", "lvl 3"),
        ("WaveMix-256/16 (level 3, ff)", "ff"),
        ("WaveMix-Lite-8/10*", "footnote mark"),
        ("WaveMix-256/16", "level is missing"),
        ("WaveMix-Lite-256/16 (level 2)", "Lite means level 1"),
        ("WaveMix-256/16 (level 2, 3 level)", "second time"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, unread: str) -> None:
    with pytest.raises(InputError, match=unread) as caught:
        WaveMixConfig.from_notation(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("dim", value) for value in (0, -4, 6, 8.0, "8", True)),
        *(("level", value) for value in (0, -1, 1.5, 13, 99)),
        *((name, 0) for name in ("depth", "ff", "mult", "in_channels", "stride", "patch_size", "head_dim")),
        *(("dropout", value) for value in (-0.1, 1.0, "half")),
        *((name, "unknown") for name in ("stem", "mixer", "upsample", "wavelet")),
        ("wavelet", "morl"),  # a continuous one
    ],
)
def test_bad_values_are_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(InputError, match=field):
        WaveMixConfig(**{"dim": 8, "depth": 1, **{field: value}})


def test_what_does_not_go_together() -> None:
    with pytest.raises(InputError, match="ff"):
        WaveMixConfig(dim=8, depth=1, ff=16, upsample="bilinear")
    with pytest.raises(InputError, match="idwt"):
        WaveMixConfig(dim=8, depth=1, level=2, mixer="dwt-single", upsample="idwt")
    with pytest.raises(InputError, match="stemm"):
        WaveMixConfig.from_notation("WaveMix-Lite-8/5", stemm="strided")


def test_replace_lets_ff_follow_dim() -> None:
    config = WaveMixConfig(dim=8, depth=1)
    assert config.replace(dim=16).ff == 16
    assert config.replace(dim=16, ff=8).ff == 8
    assert WaveMixConfig(dim=8, depth=1, ff=12).replace(dim=16).ff == 12
    with pytest.raises(InputError, match="level_"):
        config.replace(level_=2)


def test_level_by_override() -> None:
    assert WaveMixConfig.from_notation("WaveMix-256/16", level=3).notation == "WaveMix-256/16 (level 3)"


def test_frozen_and_hashable() -> None:
    config = WaveMixConfig(dim=8, depth=1)
    assert hash(config) == hash(WaveMixConfig(dim=8, depth=1, ff=8))
    with pytest.raises(FrozenInstanceError):
        config.dim = 16  # type: ignore[misc]


def test_choices_are_those_that_exist() -> None:
    assert set(Mixer.__args__) == set(MIXERS)
    assert set(Upsample.__args__) == set(UPSAMPLERS)
    for stem in Stem.__args__:
        create_model("WaveMix-Lite-8/1", num_classes=2, stem=stem)
