"""Predictions for people and for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table
from torch import Tensor


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image.

    Attributes:
        file: Of the image, or its number in the data set.
        classes: Names, the most probable first.
        probabilities: Of these classes.
    """

    file: str
    classes: list[str]
    probabilities: list[float]


def rank_classes(files: Sequence[str], probabilities: Tensor, names: Sequence[str], top: int) -> list[Prediction]:
    """Makes predictions of probabilities (N, K)."""
    best = probabilities.topk(min(max(top, 1), len(names)), dim=1)
    return [
        Prediction(file, [names[i] for i in indices], [round(value, 6) for value in values])
        for file, values, indices in zip(files, best.values.tolist(), best.indices.tolist(), strict=True)
    ]


def print_predictions(predictions: Sequence[Prediction], as_json: bool) -> None:
    """Prints a table, or JSON: a list with an object for each image, `Prediction`'s attributes its keys."""
    if as_json:
        print(json.dumps([asdict(prediction) for prediction in predictions], indent=2))
        return
    table = Table("file", "class", "probability", "then")
    for prediction in predictions:
        pairs = list(zip(prediction.classes, prediction.probabilities, strict=True))
        then = ", ".join(f"{name} {probability:.3f}" for name, probability in pairs[1:])
        table.add_row(prediction.file, pairs[0][0], f"{pairs[0][1]:.3f}", then)
    Console(width=None if sys.stdout.isatty() else 1000).print(table)  # file names whole where lines may be long
