"""Predictions for people and for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from wavemix_pl.annotation import annotate
from wavemix_pl.callbacks.masks import MaskWriter, refuse_collisions
from wavemix_pl.data import ImageFiles
from wavemix_pl.errors import InputError


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image.

    Attributes:
        file: Of the image, or its number in the data set.
        classes: Name -> probability, the most probable first.
        overlay: The image with them written below it, where that was asked for.
    """

    file: str
    classes: dict[str, float]
    overlay: str | None = None


def predict(
    trainer: Trainer, model: LightningModule, datamodule: LightningDataModule, options: Namespace, **kwargs: Any
) -> None:
    """Prints the most probable classes of each image, or writes its mask.

    Raises:
        InputError: The options do not go together, or there was nothing to predict.
    """
    if options.top < 1:
        raise InputError(f"--top must be at least 1, got {options.top}")
    if trainer.world_size > 1:
        raise InputError("predict keeps the order of the images on one device only: pass --trainer.devices=1")
    if getattr(model, "task", None) == "segmentation":
        if not isinstance(datamodule, ImageFiles):
            raise InputError("masks are written for image files: name files or folders, and leave --data out")
        writer = MaskWriter(options.output or str(Path(options.trainer.default_root_dir, "masks")))
        trainer.callbacks.append(writer)  # type: ignore[attr-defined]  # the trainer's list
        trainer.predict(model, datamodule, **{**kwargs, "return_predictions": False})
        print_masks(writer.written, as_json=options.json)
        return
    folder = Path(options.output or Path(options.trainer.default_root_dir, "predictions"))
    if options.overlay:
        if not isinstance(datamodule, ImageFiles):
            raise InputError("overlays are drawn of image files: name files or folders, and leave --data out")
        refuse_collisions(datamodule.files, folder, "overlays")
    batches = trainer.predict(model, datamodule, **{**kwargs, "return_predictions": True})
    if not batches:
        raise InputError("nothing was predicted: limit_predict_batches is 0")
    probabilities = torch.cat([torch.as_tensor(batch) for batch in batches])
    names = datamodule.class_names  # type: ignore[attr-defined]  # our data modules have them
    files = [str(file) for file in getattr(datamodule, "files", range(len(probabilities)))]
    files = files[: len(probabilities)]  # limit_predict_batches
    predictions = rank_classes(files, probabilities, names, options.top)
    if options.overlay:
        predictions = write_overlays(predictions, folder)
    print_predictions(predictions, as_json=options.json)


def write_overlays(predictions: Sequence[Prediction], folder: Path) -> list[Prediction]:
    """Writes `NAME.png` for each image, NAME being its name without its suffix, and says so in the predictions."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for prediction in predictions:
        target = folder / f"{Path(prediction.file).stem}.png"
        annotate(Path(prediction.file), prediction.classes, target)
        written.append(replace(prediction, overlay=str(target)))
    return written


def rank_classes(files: Sequence[str], probabilities: Tensor, names: Sequence[str], top: int) -> list[Prediction]:
    """Makes predictions of probabilities (N, K)."""
    best = probabilities.topk(min(max(top, 1), len(names)), dim=1)
    return [
        Prediction(file, {names[i]: round(value, 6) for i, value in zip(indices, values, strict=True)})
        for file, values, indices in zip(files, best.values.tolist(), best.indices.tolist(), strict=True)
    ]


def print_predictions(predictions: Sequence[Prediction], as_json: bool) -> None:
    """Prints a table, or JSON: a list with an object {"file", "classes"} for each image; "overlay" where it has one."""
    if as_json:
        entries = [asdict(prediction) for prediction in predictions]
        print(json.dumps([{k: v for k, v in entry.items() if v is not None} for entry in entries], indent=2))
        return
    overlays = any(prediction.overlay for prediction in predictions)
    table = Table("file", "class", "probability", "then", *["overlay"] * overlays)
    for prediction in predictions:
        (first, probability), *others = prediction.classes.items()
        then = ", ".join(f"{name} {value:.3f}" for name, value in others)
        row = (prediction.file, first, f"{probability:.3f}", then, *[prediction.overlay or ""] * overlays)
        table.add_row(*map(escape, row))
    Console(width=None if sys.stdout.isatty() else 1000).print(table)  # file names whole where lines may be long


def print_masks(masks: Sequence[Any], as_json: bool) -> None:
    """Prints what was written for each image: a table, or JSON with the keys "file", "mask", "overlay", "classes"."""
    if as_json:
        print(json.dumps([asdict(mask) for mask in masks], indent=2))
        return
    table = Table("file", "mask", "largest classes")
    for mask in masks:
        largest = ", ".join(f"{name} {share:.0%}" for name, share in list(mask.classes.items())[:4])
        table.add_row(escape(mask.file), escape(mask.mask), escape(largest))
    Console(width=None if sys.stdout.isatty() else 1000).print(table)
