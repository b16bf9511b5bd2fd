"""Which weights there are, the authors' and those that come with the package: the verb `weights`."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wavemix_pl.models.published_weights import PUBLISHED, found, weights_folder
from wavemix_pl.models.shipped import shipped_models
from wavemix_pl.parser import Parser


@dataclass(frozen=True)
class Listed:
    """One line of the list.

    Attributes:
        name: What every place that takes weights takes as well as a file.
        task: Which head the model has.
        model: In the paper's notation.
        overrides: Its further fields of `WaveMixConfig`.
        classes: K.
        image_size: (rows, columns) it was trained on, or None where no source tells.
        claimed: Percent, top-1 or mean IoU of a segmenter: as the file's name claims, not measured here; of what comes
            with the package, as its test images gave.
        file: Below the folder of weights.
        url: Where it is published, if not with the package.
        found: Where it lies on this machine, or None.
        note: What else one must know.
    """

    name: str
    task: str
    model: str
    overrides: dict[str, Any]
    classes: int
    image_size: tuple[int, int] | None
    claimed: str
    file: str
    url: str | None
    found: str | None
    note: str | None


def list_weights(folder: str | Path | None = None) -> list[Listed]:
    """All weights that have a name. The authors' are looked for in a folder and in the hub's cache, not on the network.

    Args:
        folder: See `weights_folder`.
    """
    listed = []
    for entry in PUBLISHED.values():
        path = found(entry, folder)
        what = (entry.name, entry.task, entry.notation, dict(entry.overrides), entry.num_classes, entry.image_size)
        listed.append(
            Listed(*what, entry.accuracy, entry.file, entry.on_hub.url, str(path) if path else None, entry.note)
        )
    for model in shipped_models().values():
        what = (model.name, model.task, model.notation, dict(model.overrides), model.num_classes, model.image_size)
        (result,) = model.results.values()
        listed.append(Listed(*what, f"{result:.2f}", model.file.name, None, str(model.file), "comes with the package"))
    return listed


def run(arguments: list[str]) -> None:
    """The verb `weights`."""
    parser = Parser(
        prog="wavemix-pl weights",
        description="Lists the authors' published weights, fetched from the hub when a name is first used, and those "
        "that come with the package.",
    )
    parser.add_argument(
        "--folder", type=str, help="Where files may lie by hand. Default: $WAVEMIX_PL_WEIGHTS, else weights."
    )
    parser.add_argument("--json", action="store_true", help="Print JSON instead of a table.")
    options = parser.parse_args(arguments[1:])
    listed = list_weights(options.folder)
    if options.json:
        print(json.dumps([vars(entry) for entry in listed], indent=2))
    else:
        _print_list(listed, weights_folder(options.folder))


def _print_list(listed: list[Listed], folder: Path) -> None:
    table = Table("name", "task", "model", "classes", "images", "claimed", "here, or the file to fetch")
    table.caption = (
        f"Files put in by hand lie in {escape(str(folder))}. The authors' accuracies are what the files' names claim."
    )
    table.columns[0].no_wrap = True
    for entry in listed:
        stem = {
            name: value for name, value in entry.overrides.items() if name != "stem"
        }  # stride or patch_size tell it
        model = ", ".join([entry.model, *(f"{name} {value}" for name, value in stem.items())])
        note = f"\n[dim]{escape(entry.note)}[/]" if entry.note else ""
        size = "x".join(map(str, entry.image_size)) if entry.image_size else ""
        claimed = f"{entry.claimed}% {'mIoU' if entry.task == 'segmentation' else 'top-1'}"
        found_here = entry.found if entry.url else "here"
        where = f"[green]{escape(str(found_here))}[/]" if entry.found else f"no: {escape(entry.file)}"
        table.add_row(f"{entry.name}{note}", entry.task, model, str(entry.classes), size, claimed, where)
    Console(width=None if sys.stdout.isatty() else 200).print(table)
