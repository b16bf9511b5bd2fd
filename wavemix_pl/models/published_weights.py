"""The authors' published weights: which there are, what model each belongs to, and where its file lies."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from wavemix_pl.config import WaveMixConfig
from wavemix_pl.errors import InputError
from wavemix_pl.models.hub_file import HubFile
from wavemix_pl.models.shipped import ShippedModel, shipped_models

REPOSITORY, FOLDER = "cloudwalker/wavemix", "Saved_Models_Weights"
_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")


# What one must know of a data set's classes or images to use the weights.
_NOTES = {
    "galaxy10": "trained without normalisation: --data.mean=[0,0,0] --data.std=[1,1,1]",
    "tinyimagenet": "in the order of wnids.txt",
    "cityscapes": "0 is void, then train id + 1",
}


@dataclass(frozen=True)
class PublishedWeights:
    """One of the published checkpoints.

    Attributes:
        data: Data set.
        file: Below the hub repository's folder, and below a local folder of weights.
        notation: The model in the paper's notation.
        overrides: Its further fields of `WaveMixConfig`.
        num_classes: K.
        image_size: (rows, columns) of the images it was trained on, or None where no source tells.
        suffix: What tells it from another of the same data set and notation.
        task: Which head it has.
    """

    data: str
    file: str
    notation: str
    overrides: Mapping[str, Any]
    num_classes: int
    image_size: tuple[int, int] | None = None
    suffix: str = ""
    task: Literal["classification", "segmentation"] = "classification"

    @property
    def name(self) -> str:
        """What `resolve` takes: data set, and the notation in letters that every shell leaves alone."""
        model = self.notation.casefold().replace("/", "-").replace(" (level ", "-level").removesuffix(")")
        return f"{self.data}/{model}{self.suffix}"

    @property
    def accuracy(self) -> str:
        """Percent, as the file's name claims: top-1, or mean IoU of a segmenter."""
        return Path(self.file).stem[-len("00.00") :]

    @property
    def note(self) -> str | None:
        """What else one must know to use it."""
        return _NOTES.get(self.data)

    @property
    def config(self) -> WaveMixConfig:
        """The model's; all have the published code's dropout of 0.5."""
        return WaveMixConfig.from_notation(self.notation, **self.overrides)

    @property
    def on_hub(self) -> HubFile:
        return HubFile(REPOSITORY, f"{FOLDER}/{self.file}")


_P = PublishedWeights
_PATCH4 = {"stem": "patchify", "patch_size": 4}
_PATCH8 = {"stem": "patchify", "patch_size": 8}
_STRIDE1 = {"stem": "strided", "stride": 1}
_STRIDE2 = {"stem": "strided", "stride": 2}

# Image sizes: the paper's Section 4.2 and Table 7, and the authors' scripts. The level-4 model cannot have seen the
# paper's 224x224, which its stem and levels do not divide; for Places-365 the paper states two sizes.
_ENTRIES = (
    _P("imagenet", "ImageNet/wavemix_192_16_75.06.pth", "WaveMix-192/16 (level 3)", _PATCH4, 1000, (224, 224)),
    _P("imagenet", "ImageNet/wavemixlite_71.18.pth", "WaveMix-Lite-192/16", _PATCH4, 1000, (224, 224)),
    _P("imagenet", "ImageNet/ImageNet73.03.pth", "WaveMix-256/16 (level 3)", _PATCH4, 1000, (224, 224)),
    _P("imagenet", "ImageNet/imagenet4level_70.42.pth", "WaveMix-256/16 (level 4)", _STRIDE2, 1000),
    _P("places365", "Places365/places365_54.94.pth", "WaveMix-256/12 (level 2)", _PATCH8, 365),
    _P("galaxy10", "galaxy10/galaxy_95.42.pth", "WaveMix-192/16 (level 3)", _PATCH4, 10, (256, 256)),
    _P("galaxy10", "galaxy10/galaxy_90.23.pth", "WaveMix-Lite-192/16", _PATCH4, 10, (256, 256)),
    _P("cifar10", "cifar10/cifar10_95.37.pth", "WaveMix-Lite-320/8", _STRIDE1, 10, (32, 32)),
    _P("cifar10", "cifar10/cifar10_94.58.pth", "WaveMix-Lite-144/7", _STRIDE1, 10, (32, 32)),
    _P("cifar100", "cifar100/cifar100_78.81.pth", "WaveMix-Lite-256/10", _STRIDE1, 100, (32, 32)),
    _P("cifar100", "cifar100/cifar100_77.82.pth", "WaveMix-Lite-256/8", _STRIDE1, 100, (32, 32)),
    _P("tinyimagenet", "tinyimagenet/tiny_78.76.pth", "WaveMix-192/16 (level 3)", _PATCH4, 200, (128, 128), "-128px"),
    _P("tinyimagenet", "tinyimagenet/tiny_71.69.pth", "WaveMix-192/16 (level 3)", _PATCH4, 200),
    _P("tinyimagenet", "tinyimagenet/tinyimagenet_62.51.pth", "WaveMix-Lite-256/12", _STRIDE1, 200, (64, 64)),
    _P(
        "cityscapes",
        "cityscapes_83.04.pth",
        "WaveMix-192/16 (level 3)",
        {**_PATCH4, "head_dim": 128},  # 192 -> 128 -> 64
        20,
        (1024, 2048),
        task="segmentation",
    ),
)
PUBLISHED = {entry.name: entry for entry in _ENTRIES}


def find_published(name: str) -> PublishedWeights:
    """The entry of a name, in any case.

    Raises:
        InputError: No such name; the nearest one is told.
    """
    if name.casefold() in PUBLISHED:
        return PUBLISHED[name.casefold()]
    names = [*shipped_models(), *PUBLISHED]
    part_of = [known for known in names if name.casefold() in known]
    nearest = part_of[0] if part_of else difflib.get_close_matches(name.casefold(), names, n=1, cutoff=0)[0]
    raise InputError(
        f"{name!r} is neither a file nor the name of published weights; the nearest name is {nearest!r}, "
        "and 'wavemix-pl weights' lists all"
    )


def known_weights(name: str) -> PublishedWeights | ShippedModel | None:
    """The entry of a name, in any case, of the authors' weights or of a model that comes with the package."""
    return shipped_models().get(name.casefold()) or PUBLISHED.get(name.casefold())


def find_weights(name: str) -> PublishedWeights | ShippedModel:
    """The same, where there must be one.

    Raises:
        InputError: No such name; the nearest one is told.
    """
    return known_weights(name) or find_published(name)


def weights_folder(folder: str | Path | None = None) -> Path:
    """Where files of weights are looked for: the folder given, else $WAVEMIX_PL_WEIGHTS, else `weights`."""
    return Path(folder or os.environ.get("WAVEMIX_PL_WEIGHTS") or "weights").expanduser()


def resolve(source: str | Path, folder: str | Path | None = None) -> Path:
    """The file of weights: one that is there stays; a published name is looked for, and fetched where it is missing.

    A name is looked for in the local folder, where the file has the authors' path, such as
    "weights/galaxy10/galaxy_95.42.pth", then in huggingface_hub's cache, then on the hub. What came from the hub has
    its SHA-256 compared with the hub's each time; of a file that someone put into the local folder none is known.

    Args:
        source: A file, a published name, or that of a model that comes with the package.
        folder: Of weights, see `weights_folder`.

    Raises:
        InputError: Neither a file nor a published name; or the file cannot be fetched, or is not what the hub has.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return path
    refuse_no_weights(source)
    if shipped := shipped_models().get(str(source).casefold()):
        return shipped.file
    entry = find_published(str(source))
    local = weights_folder(folder) / entry.file
    return local if local.is_file() else entry.on_hub.fetch(entry.name, local)


def refuse_no_weights(source: str | Path) -> None:
    """Asks of a source whether there is such a file or name; nothing is fetched.

    Raises:
        InputError: Neither; the nearest name is told.
    """
    path = Path(source).expanduser()
    if path.is_file() or known_weights(str(source)):
        return
    if path.suffix.casefold() in _SUFFIXES:
        names = [entry.name for entry in PUBLISHED.values() if path.as_posix().endswith(entry.file)]
        hint = f"; it is published: the name {names[0]!r} in its place fetches it" if names else ""
        raise InputError(f"{source}: no such file of weights{hint}")
    find_published(str(source))


def found(entry: PublishedWeights, folder: str | Path | None = None) -> Path | None:
    """Where the file lies already, without a look at the network."""
    local = weights_folder(folder) / entry.file
    if local.is_file():
        return local
    return entry.on_hub.cached()
