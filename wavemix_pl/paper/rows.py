"""The paper's tables as data: `experiments/tables/*.yaml`, a line for each row."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from wavemix_pl.config import WaveMixConfig
from wavemix_pl.errors import InputError

Task = Literal["classification", "segmentation"]

_TABLE_KEYS = {"title", "columns", "star", "benchmark", "defaults", "groups", "shared", "reference", "rows"}
_ROW_KEYS = {"row", "group", "paper", "source", "reported", "starred", "note", "tolerance"}
_ROW_KEYS |= {"model", "overrides", "data", "options", "image_size", "task", "recipe", "backbone", "benchmark"}
_COUNT = re.compile(r"(\d+(?:\.(\d+))?) M")
_MARKS = "*†‡ "


@dataclass(frozen=True)
class Data:
    """A data set as the tables name it.

    Attributes:
        name: In the tables.
        kind: Name of the data module.
        options: Of the data module.
        classes: K.
        channels: Of its images.
        image_size: (rows, columns) that the data module gives its images by default.
    """

    name: str
    kind: str
    options: dict[str, Any]
    classes: int
    channels: int
    image_size: tuple[int, int]


@dataclass(frozen=True)
class Row:
    """A row of one of the paper's tables.

    Attributes:
        table: Number of the table; of what the text tells without a table, the section, such as "4.6".
        row: The paper's label, without its footnote mark.
        group: The table's part in which it stands, where a table has parts.
        paper: Metric -> the number that the paper prints: percent, parameters, GB, images/s, seconds.
        tolerance: Parameters by which a count may differ from the printed one: by default one unit of the last digit.
        source: Where numbers of others beside it come from.
        reported: Where the row comes from, or why it cannot be built, where it is no model that can be built here.
        star: What the footnote mark means, on a marked row.
        note: What else one must know; why a number cannot be met.
        model: Name for `build_model`, or None.
        overrides: Its further fields or arguments.
        data: What it is trained and tested on, or None.
        options: Of the data module, beside those of `data`.
        image_size: (rows, columns) of the images that the model sees.
        task: Which head.
        recipe: Names of the configs in `experiments/recipes`, later ones win.
        backbone: File below the folder of weights from which stem and blocks start, or None.
        benchmark: Metric -> options of `wavemix-pl benchmark` that measure it.
    """

    table: int | str
    row: str
    group: str | None
    paper: dict[str, float]
    tolerance: float
    source: str | None = None
    reported: str | None = None
    star: str | None = None
    note: str | None = None
    model: str | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    data: Data | None = None
    options: dict[str, Any] = field(default_factory=dict)
    image_size: tuple[int, int] | None = None
    task: Task = "classification"
    recipe: tuple[str, ...] = ()
    backbone: str | None = None
    benchmark: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def score(self) -> str:
        """The metric by which its models are compared."""
        return "acc1" if self.task == "classification" else "miou"

    @property
    def experiment(self) -> str:
        """What is trained, and how: the same text for rows that one run serves, whatever tables they stand in."""
        model = str(self.model)
        if model.casefold().startswith("wavemix"):
            model = WaveMixConfig.from_notation(model).notation
        data = self.data and self.data.name
        settings = (sorted(self.overrides.items()), data, sorted(self.options.items()), self.image_size)
        return str((model, *settings, self.recipe, self.backbone))

    def __str__(self) -> str:
        return f"{name_of(self.table)}, {self.group + ': ' if self.group else ''}{self.row}"


@dataclass(frozen=True)
class Table:
    """One of the paper's tables.

    Attributes:
        table: Its number, or the section of numbers that stand in no table.
        title: In our words.
        columns: Metric -> heading.
        rows: In the paper's order.
        reference: Row from which the changes in the columns `*_change` are counted, or None.
    """

    table: int | str
    title: str
    columns: dict[str, str]
    rows: list[Row]
    reference: str | None = None


def name_of(table: int | str) -> str:
    """What the paper calls it.

    >>> name_of(5), name_of("4.6")
    ('Table 5', 'Section 4.6')
    """
    return f"Table {table}" if isinstance(table, int) else f"Section {table}"


def experiments_folder(start: Path | None = None) -> Path:
    """The folder `experiments` of a checkout: below the current directory, or beside the package.

    Raises:
        InputError: There is none: the package was installed without its repository.
    """
    places = (start or Path.cwd(), Path(__file__).parents[2])
    for place in places:
        if (place / "experiments" / "tables").is_dir():
            return place / "experiments"
    raise InputError("the tables lie in the repository, not in the package: run this in a clone of it")


@cache
def load_tables() -> dict[str, Table]:
    """All tables by number, then sections, as the command line names them: "1" ... "14", "4.3", "4.6".

    Raises:
        InputError: A file that cannot be read, or says what no row has; it is named.
    """
    folder = experiments_folder() / "tables"
    data = _load_data(folder / "data.yaml")
    files = sorted(folder.glob("table*.yaml")) + sorted(folder.glob("section-*.yaml"))
    return {str(table.table): table for table in (_load_table(path, data) for path in files)}


def find_table(name: str | int) -> Table:
    """The table of a number.

    Raises:
        InputError: No such table.
    """
    tables = load_tables()
    if str(name) not in tables:
        raise InputError(f"there is no table {name!r}; known are {', '.join(tables)}")
    return tables[str(name)]


def rows_like(row: Row) -> list[Row]:
    """The row, and all others of any table that one run serves as well."""
    return [row, *(other for other in _by_experiment().get(row.experiment, []) if other != row)]


@cache
def _by_experiment() -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in (row for table in load_tables().values() for row in table.rows if row.model):
        found.setdefault(row.experiment, []).append(row)
    return found


def find_rows(table: Table, label: str | None = None, group: str | None = None) -> list[Row]:
    """The rows of a table that have a label and stand in a group, both as printed but for marks and case.

    Raises:
        InputError: None has; the nearest is suggested.
    """
    rows = table.rows
    for given, kind in ((group, "group"), (label, "row")):
        if given is None:
            continue
        found = [row for row in rows if _plain(getattr(row, kind) or "") == _plain(given)]
        if not found:
            known = {_plain(name): name for name in (getattr(row, kind) for row in rows) if name}
            near = difflib.get_close_matches(_plain(given), known, n=1, cutoff=0.4)
            hint = f", did you mean {known[near[0]]!r}?" if near else f"; there are {', '.join(known.values())}"
            raise InputError(f"{name_of(table.table)} has no {kind} {given!r}{hint}")
        rows = found
    return rows


def parse_size(text: str) -> tuple[int, int]:
    """Height and width.

    >>> parse_size("256x512")
    (256, 512)
    """
    height, _, width = text.partition("x")
    return int(height), int(width)


def _plain(label: str) -> str:
    return label.casefold().rstrip(_MARKS).replace(" ", "")


def _load(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: is no mapping of names to values")
    return content


def _load_data(path: Path) -> dict[str, Data]:
    return {
        name: Data(
            name,
            kind=entry["class"],
            options=entry.get("options", {}),
            classes=entry["classes"],
            channels=entry["channels"],
            image_size=parse_size(entry["image_size"]),
        )
        for name, entry in _load(path).items()
    }


def _load_table(path: Path, data: Mapping[str, Data]) -> Table:
    content = _load(path)
    _refuse_unknown(content, _TABLE_KEYS, path)
    name = path.stem.removeprefix("table").removeprefix("section-")
    table = int(name) if path.stem.startswith("table") else name
    rows, reference = [], content.get("reference")
    for line in content["rows"]:
        for entry in _by_group(line):
            group = (content.get("groups") or {}).get(entry.get("group")) or {}
            defaults = {"benchmark": content.get("benchmark", {}), **content.get("defaults", {})}
            settings = _merge(_merge(defaults, group), entry)
            _refuse_unknown(settings, _ROW_KEYS, path)
            if reference is None:  # else all rows are measured, since changes are counted from them
                settings["benchmark"] = {k: v for k, v in settings["benchmark"].items() if k in settings["paper"]}
            rows.append(_row(table, settings, data, content.get("star"), path))
    return Table(table, content["title"], content["columns"], rows, reference)


def _refuse_unknown(entry: Mapping[str, Any], known: set[str], path: Path) -> None:
    for key in entry:
        if key not in known:
            raise InputError(f"{path}: unknown key {key!r}; known are {', '.join(sorted(known))}")


def _by_group(line: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A line with numbers for several groups is a row in each of them."""
    groups = dict.fromkeys(name for value in line["paper"].values() if isinstance(value, dict) for name in value)
    if not groups:
        yield line
    for group in groups:
        paper = {k: v.get(group) if isinstance(v, dict) else v for k, v in line["paper"].items()}
        yield {**line, "group": group, "paper": {k: v for k, v in paper.items() if v is not None}}


def _merge(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Both, mappings within them joined; what the second says wins."""
    merged = dict(first)
    for key, value in second.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _row(table: int | str, entry: dict[str, Any], data: Mapping[str, Data], star: str | None, path: Path) -> Row:
    label, reported = str(entry["row"]), entry.get("reported")
    model = entry.get("model") or (label if label.casefold().startswith("wavemix") else None)
    if (model is None) == (reported is None):
        raise InputError(f"{path}: row {label!r} needs either a model or 'reported'")
    if entry.get("data") not in (None, *data):
        raise InputError(f"{path}: row {label!r} has unknown data {entry['data']!r}; known are {', '.join(data)}")
    source = data[entry["data"]] if "data" in entry else None
    native = source.image_size if source else None
    paper = {metric: _number(value) for metric, value in entry["paper"].items()}
    return Row(
        table=table,
        row=label,
        group=entry.get("group"),
        paper=paper,
        tolerance=_tolerance(entry.get("tolerance"), entry["paper"].get("params")),
        source=entry.get("source"),
        reported=reported,
        star=star if entry.get("starred") else None,
        note=entry.get("note"),
        model=model,
        overrides=entry.get("overrides", {}),
        data=source,
        options=entry.get("options", {}),
        image_size=parse_size(entry["image_size"]) if "image_size" in entry else native,
        task=entry.get("task", "classification"),
        recipe=tuple(entry.get("recipe", ())),
        backbone=entry.get("backbone"),
        benchmark=entry["benchmark"],
    )


def _number(printed: Any) -> float:
    """What is printed, in units of one.

    >>> _number("28.9 M"), _number(75.06)
    (28900000.0, 75.06)
    """
    match = _COUNT.fullmatch(printed) if isinstance(printed, str) else None
    return round(float(match[1]) * 1e6) if match else float(printed)


def _tolerance(stated: Any, printed: Any) -> float:
    """In parameters.

    >>> _tolerance(None, "28.9 M"), _tolerance("1.1%", "20.0 M"), _tolerance(None, 3566)
    (100000.0, 220000.0, 1.0)
    """
    if isinstance(stated, str):
        return float(stated.rstrip("%")) / 100 * _number(printed)
    if stated is not None:
        return float(stated)
    match = _COUNT.fullmatch(printed) if isinstance(printed, str) else None
    return 10 ** -len(match[2] or "") * 1e6 if match else 1.0
