"""Which data sets are here, whether their files are whole, and their files in archives: the verb `datasets`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from wavemix_pl import data
from wavemix_pl.data.base import ImageDataModule
from wavemix_pl.data.folder import FileImages
from wavemix_pl.data.readable import unreadable
from wavemix_pl.data.shards import write_shards
from wavemix_pl.data.tensor_images import TensorImages
from wavemix_pl.errors import InputError
from wavemix_pl.parser import Parser

KINDS: dict[str, type[ImageDataModule]] = {
    name: kind for name in data.__all__ if getattr(kind := getattr(data, name), "about", None) is not None
}


@dataclass(frozen=True)
class Listed:
    """One line of the list.

    Attributes:
        name: For `--data=NAME`.
        found: Where it lies, or None.
        missing: Why it cannot be used, and what to do; None where it is found.
        train: Number of training images.
        test: Number of test images.
        classes: K.
        size_gb: Of the download.
        licence: In a word.
        source: Address of its home page.
        note: What else one must know.
    """

    name: str
    found: str | None
    missing: str | None
    train: int
    test: int
    classes: int
    size_gb: float
    licence: str
    source: str
    note: str


def find_datasets(root: str) -> list[Listed]:
    """All data sets that have a name, looked for in a folder."""
    return [_look(name, kind, root) for name, kind in KINDS.items()]


def _look(name: str, kind: type[ImageDataModule], root: str) -> Listed:
    about = kind.about
    assert about is not None  # KINDS
    found, missing, note = None, about.how, about.note
    try:
        module = kind(root=root)  # type: ignore[call-arg]  # all of KINDS have one
        path = module.found()
        found = str(path) if path else None
        note = "generated images, not the data set" if module.generated else note
    except InputError as error:
        missing = str(error)
    facts = {key: value for key, value in asdict(about).items() if key != "how"} | {"note": note}
    return Listed(name, found, None if found else missing, **facts)


@dataclass(frozen=True)
class Checked:
    """What `check` found.

    Attributes:
        name: Of the data set.
        images: How many were opened.
        broken: What is wrong with each of those that cannot be used.
    """

    name: str
    images: int
    broken: list[str]


def check_dataset(name: str, root: str) -> Checked:
    """Opens every image of the training and test split, and does not stop at the first that is broken.

    Raises:
        InputError: No such name, or the data set is not there.
    """
    if name not in KINDS:
        raise InputError(f"unknown data set {name!r}; known are {', '.join(KINDS)}")
    module = KINDS[name](root=root)  # type: ignore[call-arg]  # all of KINDS have one
    if module.found() is None:
        module.load("train")  # says what is missing
    images, broken = 0, []
    for split in ("train", "test"):
        try:
            dataset: Any = module.load(split)
        except InputError as error:  # what lies in one file is whole or not
            broken.append(str(error))
            continue
        images += len(dataset)
        if not isinstance(dataset, TensorImages):
            broken += _open_all(dataset, f"{name} {split}")
    return Checked(name, images, broken)


def _open_all(dataset: Any, title: str) -> Iterator[str]:
    def progress(found: Iterable[Any], total: int) -> Iterable[Any]:
        return track(found, title, total=total, console=Console(stderr=True)) if sys.stderr.isatty() else found

    return (message for _, message in unreadable(dataset, progress))


def shard_dataset(name: str, root: str, output: str | None, shard_mb: float, seed: int) -> Path:
    """Packs the image files of a data set into archives, for `--data=ShardData`.

    Raises:
        InputError: No such name, images that do not lie in files, or what the data set and `write_shards` raise.
    """
    kinds = {n: kind for n in data.__all__ if issubclass(kind := getattr(data, n), FileImages) and n != "ShardData"}
    if name not in kinds:
        raise InputError(f"{name!r} has no image files to pack; there are {', '.join(kinds)}")
    if shard_mb <= 0:
        raise InputError(f"--shard_mb must be above 0, got {shard_mb:g}")
    module = kinds[name](root=root)
    folder = Path(output or f"{name}-shards")
    write_shards(module.parts(), list(module.class_names), folder, shard_mb, seed)
    if module.generated:  # they stay what they are
        module.generated.write(folder)
    return folder


def run(arguments: list[str]) -> None:
    """The verb `datasets`: the list, with `check NAME` the broken files of one, with `shard NAME` one in archives."""
    parser = Parser(
        prog="wavemix-pl datasets",
        description="Lists the data sets; 'check NAME' opens all images of one; 'shard NAME' packs the files of one, "
        "or of your own folder (ImageFolderData), into tar archives for --data=ShardData.",
    )
    parser.add_argument("words", nargs="*", metavar="check NAME | shard NAME", help="What to do with which.")
    parser.add_argument("--root", type=str, default="data", help="Folder of data sets.")
    parser.add_argument("--json", action="store_true", help="Print JSON instead of a table.")
    parser.add_argument("--output", type=str, help="Of 'shard': a new folder. Default: NAME-shards.")
    parser.add_argument("--shard_mb", type=float, default=256, help="Of 'shard': size of an archive in megabytes.")
    parser.add_argument("--seed", type=int, default=0, help="Of 'shard': of the training images' order.")
    options = parser.parse_args(arguments[1:])
    words: list[str] = options.words or []
    if not words:
        listed = find_datasets(options.root)
        print(json.dumps([asdict(entry) for entry in listed], indent=2)) if options.json else _print_list(listed)
    elif words[0] not in ("check", "shard") or len(words) != 2:
        given = " ".join(["datasets", *words])
        raise InputError(f"expected 'datasets', 'datasets check NAME' or 'datasets shard NAME', got {given!r}")
    elif words[0] == "shard":
        folder = shard_dataset(words[1], options.root, options.output, options.shard_mb, options.seed)
        print(f"train on them: wavemix-pl fit --data=ShardData --data.root={folder}")
    else:
        _report(check_dataset(words[1], options.root), options.json)


def _report(checked: Checked, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(checked), indent=2))
    else:
        for message in checked.broken:
            print(message)
    if checked.broken:
        raise InputError(f"{checked.name}: {len(checked.broken)} broken, {checked.images:,} images opened")
    if not as_json:
        print(f"{checked.name}: {checked.images:,} images, all can be read")


def _print_list(listed: list[Listed]) -> None:
    table = Table("data set", "train + test", "classes", "GB", "licence", "found in, or what to do")
    for entry in listed:
        where = f"[green]{escape(entry.found)}[/]" if entry.found else escape(entry.missing or "")
        note = f" [dim]({escape(entry.note)})[/]" if entry.note else ""
        images = f"{entry.train:,} + {entry.test:,}"
        table.add_row(entry.name, images, str(entry.classes), f"{entry.size_gb:g}", entry.licence, where + note)
    Console(width=None if sys.stdout.isatty() else 160).print(table)
