"""What the verb `export` exports: the model of a checkpoint or of published weights, and for which sizes of images."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from wavemix_pl.errors import InputError
from wavemix_pl.model_arguments import read_run_checkpoint
from wavemix_pl.models.baselines import build_model
from wavemix_pl.models.published_weights import known_weights
from wavemix_pl.models.shipped import ShippedModel
from wavemix_pl.models.wavemix import WaveMixBlock, WaveMixClassifier, WaveMixSegmenter
from wavemix_pl.models.weights import load_weights, pretrained_model

Size = tuple[int, int]


@dataclass(frozen=True)
class Source:
    """What is exported.

    Attributes:
        model: In evaluation mode.
        preprocessing: What the training data did to its images, where it is known.
        file: Name of the file without suffix, in its folder.
    """

    model: WaveMixClassifier | WaveMixSegmenter
    preprocessing: dict[str, Any]
    file: Path

    @property
    def multiple(self) -> int:
        """What both sides of images are a multiple of, if stem and levels meet no rest."""
        block = cast(WaveMixBlock, self.model.blocks[0])
        return self.model.stem.reduction * math.prod(block.mixer.factors)


def read_source(checkpoint: str) -> Source:
    """A run's checkpoint, or published weights."""
    entry = known_weights(checkpoint)
    if entry and not Path(checkpoint).exists():
        known = {"image_size": list(entry.image_size)} if entry.image_size else {}
        known = entry.preprocessing if isinstance(entry, ShippedModel) else known
        return Source(pretrained_model(entry.name).eval(), known, Path(entry.name.replace("/", "-")))
    saved = read_run_checkpoint(checkpoint)
    arguments = saved["hyper_parameters"]
    variant, overrides = arguments["variant"], arguments.get("overrides") or {}
    task: Any = "segmentation" if "model.head.0.weight" in saved["state_dict"] else "classification"
    channels = {"in_channels": arguments["in_channels"]}
    model = build_model(variant, arguments["num_classes"], task, {**channels, **overrides})
    if not isinstance(model, (WaveMixClassifier, WaveMixSegmenter)):
        raise InputError(f"{checkpoint} holds {variant}: only WaveMix is exported")
    load_weights(model, saved)
    return Source(model.eval(), saved.get("preprocessing") or {}, Path(checkpoint).with_suffix(""))


def choose_sizes(source: Source, given: str | None, dynamic: bool) -> tuple[Size, tuple[int | None, ...], list[str]]:
    """For which images to export.

    Args:
        source: The model, and the size of the images of its training.
        given: "HxW", or None.
        dynamic: Whether the sides must be free.

    Returns:
        The size to trace with; of what the sides are multiples, or None for that size alone, what is to be tried first
        in front; and what there is to say of it.

    Raises:
        InputError: No size is known, or it does not go with free sides.
    """
    if given and not re.fullmatch(r"[1-9]\d*x[1-9]\d*", given):
        raise InputError(f"image size {given!r} is not of the form HxW, such as 256x512")
    known = given.split("x") if given else source.preprocessing.get("image_size")
    if not known:
        raise InputError("the checkpoint does not say how large its images were: pass --image_size=HxW")
    size, multiple = (int(known[0]), int(known[1])), source.multiple
    fits = all(side % multiple == 0 and side >= 2 * multiple for side in size)
    if dynamic:
        if not fits:
            rows, columns = (max(2, math.ceil(side / multiple)) * multiple for side in size)
            raise InputError(
                f"sides that may vary are multiples of {multiple}, from {2 * multiple} on, and {size[0]}x{size[1]} is "
                f"none: pass --image_size={rows}x{columns} beside --dynamic, or leave it out"
            )
        return size, (multiple,), []
    if given:
        return size, (None,), []
    if fits:
        return size, (multiple, None), []
    return (
        size,
        (None,),
        [f"for this size alone: others would be multiples of {multiple}, from {2 * multiple} on, and this one is not"],
    )
