"""The classifiers of the paper's tables and of the published weights, by names that timm and torch.hub can use.

A name tells dim, depth and level: "wavemix_192_16_l3", "wavemix_lite_192_16" (level 1). What it leaves open is here:
the stem, and the data set that the model is for. Without a note the stem is what the paper takes for the size (Section
4.2): strided with stride 1 up to 64x64 pixels, patches of 4x4 beyond.

No model has the 1x1 layer of 1,024 channels before pooling, since the published weights have none; with head_dim=1024
the parameters are those of Tables 4, 9 and 10.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from wavemix_pl.config import WaveMixConfig
from wavemix_pl.models.published_weights import PUBLISHED, PublishedWeights


@dataclass(frozen=True)
class Images:
    """A data set's images, as models take them.

    Attributes:
        num_classes: K.
        side: In pixels.
        mean: Per channel, of images scaled to 0...1.
        std: Likewise.
    """

    num_classes: int
    side: int
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)


# Means and deviations: what the authors' scripts have, and those of wavemix_pl.data where there is no script of theirs.
IMAGES = {
    "imagenet": Images(1000, 224),
    "places365": Images(365, 224),
    "inaturalist": Images(10_000, 256),
    "galaxy10": Images(10, 256, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),  # published: not normalised
    "cifar10": Images(10, 32, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": Images(100, 32, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "tinyimagenet": Images(200, 64, (0.4803, 0.4481, 0.3975), (0.2764, 0.2689, 0.2816)),
    "svhn": Images(10, 32, (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "mnist": Images(10, 28, (0.1307,), (0.3081,)),
    "fashion_mnist": Images(10, 28, (0.2860,), (0.3530,)),
    "emnist": Images(47, 28, (0.1736,), (0.3317,)),
}

# data set -> models; of a model of several data sets, the largest images
_MODELS = {
    "imagenet": [
        *("WaveMix-Lite-128/8", "WaveMix-Lite-192/12", "WaveMix-Lite-192/16", "WaveMix-Lite-224/20"),
        *("WaveMix-Lite-256/16", "WaveMix-128/8 (level 3)", "WaveMix-192/16 (level 3)", "WaveMix-208/12 (level 3)"),
        *("WaveMix-224/12 (level 2)", "WaveMix-224/12 (level 3)", "WaveMix-240/12 (level 2)"),
        *("WaveMix-240/12 (level 3)", "WaveMix-256/16 (level 3)", "WaveMix-256/16 (level 4)"),
    ],
    "places365": ["WaveMix-240/12 (level 4)", "WaveMix-256/12 (level 2)"],
    "inaturalist": ["WaveMix-256/16 (level 2)"],
    "tinyimagenet": ["WaveMix-Lite-160/13", "WaveMix-Lite-256/12", "WaveMix-244/12 (level 2)"],
    "cifar10": [
        *("WaveMix-Lite-16/7", "WaveMix-Lite-32/7", "WaveMix-Lite-64/6", "WaveMix-Lite-64/7", "WaveMix-Lite-128/7"),
        *("WaveMix-Lite-144/7", "WaveMix-Lite-256/7", "WaveMix-Lite-320/8"),
    ],
    "cifar100": ["WaveMix-Lite-256/8", "WaveMix-Lite-256/10"],
    "svhn": ["WaveMix-Lite-144/15"],
    "emnist": ["WaveMix-Lite-112/16", "WaveMix-Lite-128/16"],
    "mnist": ["WaveMix-Lite-8/10"],
    "fashion_mnist": ["WaveMix-Lite-8/5"],
}
_OVERRIDES: dict[str, dict[str, Any]] = {
    "WaveMix-Lite-8/10": {"upsample": "bilinear"},  # Table 5, where it has no row without the star
    "WaveMix-Lite-192/12": {"patch_size": 5},  # Table 9
    "WaveMix-Lite-256/16": {"patch_size": 5},  # Table 9
    "WaveMix-256/12 (level 2)": {"patch_size": 8},  # the published weights
    "WaveMix-256/16 (level 4)": {"stem": "strided", "stride": 2},  # the published weights
}


@dataclass(frozen=True)
class Variant:
    """A model that has a name.

    Attributes:
        name: Such as "wavemix_192_16_l3".
        config: What it is built from.
        data: The name in `IMAGES` of the data set that it is for, unless its weights say otherwise.
        weights: Published ones for it, by tag: the data set, and what else their name says ("tinyimagenet_128px").
    """

    name: str
    config: WaveMixConfig
    data: str
    weights: dict[str, PublishedWeights]


def _variants() -> Iterator[Variant]:
    published = [(entry.config, entry) for entry in PUBLISHED.values() if entry.task == "classification"]
    for data, notations in _MODELS.items():
        for notation in notations:
            stem = "patchify" if IMAGES[data].side > 64 else "strided"
            fields = {"stem": stem, "in_channels": len(IMAGES[data].mean), **_OVERRIDES.get(notation, {})}
            config = WaveMixConfig.from_notation(notation, **fields)
            weights = {_tag(entry): entry for of_entry, entry in published if of_entry == config}
            yield Variant(_name(config), config, data, weights)


def _name(config: WaveMixConfig) -> str:
    lite, level = ("_lite", "") if config.level == 1 else ("", f"_l{config.level}")
    return f"wavemix{lite}_{config.dim}_{config.depth}{level}"


def _tag(entry: PublishedWeights) -> str:
    size = re.search(r"-(\d+px)$", entry.name)
    return entry.name.partition("/")[0] + (f"_{size[1]}" if size else "")


VARIANTS = {variant.name: variant for variant in _variants()}
