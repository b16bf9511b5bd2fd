"""The files `experiments/tables/*.yaml`: a line for each row of a table."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from wavemix_pl.errors import InputError
from wavemix_pl.paper.rows import Claim, Data, Row, Table

_TABLE_KEYS = {"title", "columns", "star", "benchmark", "defaults", "groups", "shared", "reference", "claims", "rows"}
_ROW_KEYS = {"row", "group", "paper", "source", "reported", "starred", "note", "tolerance"}
_ROW_KEYS |= {"model", "overrides", "data", "options", "image_size", "task", "recipe", "backbone", "benchmark"}
_COUNT = re.compile(r"(\d+(?:\.(\d+))?) M")


def _load(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: is no mapping of names to values")
    return content


def load_data(path: Path) -> dict[str, Data]:
    return {
        name: Data(
            name,
            kind=entry["class"],
            options=entry.get("options", {}),
            classes=entry["classes"],
            channels=entry["channels"],
            image_size=_size(entry["image_size"]),
        )
        for name, entry in _load(path).items()
    }


def load_table(path: Path, data: Mapping[str, Data]) -> Table:
    content = _load(path)
    _refuse_unknown(content, _TABLE_KEYS, path)
    name = path.stem.removeprefix("table").removeprefix("section-")
    table = int(name) if path.stem.startswith("table") else name
    rows, reference = [], content.get("reference")
    printed = any(line.get("paper") for line in content["rows"])
    for line in content["rows"]:
        for entry in _by_group(line):
            group = (content.get("groups") or {}).get(entry.get("group")) or {}
            defaults = {"benchmark": content.get("benchmark", {}), **content.get("defaults", {})}
            settings = _merge(_merge(defaults, group), entry)
            _refuse_unknown(settings, _ROW_KEYS, path)
            if reference is None and printed:  # else all rows are measured: changes are counted from them
                settings["benchmark"] = {
                    k: v for k, v in settings["benchmark"].items() if k in settings.get("paper", {})
                }
            rows.append(_row(table, tuple(content["columns"]), settings, data, content.get("star"), path))
    claims = tuple(
        _claim(entry, [row.row for row in rows], content["columns"], path) for entry in content.get("claims", [])
    )
    return Table(table, content["title"], content["columns"], rows, reference, claims)


def _claim(entry: Mapping[str, Any], labels: Sequence[str], columns: Collection[str], path: Path) -> Claim:
    """Of two rows, whose labels must tell which they are."""
    _refuse_unknown(entry, {field.name for field in fields(Claim)}, path)
    claim = Claim(**{"metric": next(iter(columns)), **entry})
    for label in (claim.higher, claim.lower):
        if labels.count(label) != 1:
            raise InputError(f"{path}: a claim speaks of the row {label!r}, of which there are {labels.count(label)}")
    if claim.metric not in columns:
        raise InputError(f"{path}: a claim speaks of {claim.metric!r}; columns are {', '.join(columns)}")
    return claim


def _refuse_unknown(entry: Mapping[str, Any], known: set[str], path: Path) -> None:
    for key in entry:
        if key not in known:
            raise InputError(f"{path}: unknown key {key!r}; known are {', '.join(sorted(known))}")


def _by_group(line: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A line with numbers for several groups is a row in each of them."""
    groups = dict.fromkeys(
        name for value in line.get("paper", {}).values() if isinstance(value, dict) for name in value
    )
    if not groups:
        yield line
    for group in groups:
        paper = {k: v.get(group) if isinstance(v, dict) else v for k, v in line.get("paper", {}).items()}
        yield {**line, "group": group, "paper": {k: v for k, v in paper.items() if v is not None}}


def _merge(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Both, mappings within them joined; what the second says wins."""
    merged = dict(first)
    for key, value in second.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _row(
    table: int | str,
    columns: tuple[str, ...],
    entry: dict[str, Any],
    data: Mapping[str, Data],
    star: str | None,
    path: Path,
) -> Row:
    label, reported = str(entry["row"]), entry.get("reported")
    model = entry.get("model") or (label if label.casefold().startswith("wavemix") else None)
    if (model is None) == (reported is None):
        raise InputError(f"{path}: row {label!r} needs either a model or 'reported'")
    if entry.get("data") not in (None, *data):
        raise InputError(f"{path}: row {label!r} has unknown data {entry['data']!r}; known are {', '.join(data)}")
    source = data[entry["data"]] if "data" in entry else None
    native = source.image_size if source else None
    printed = entry.get("paper", {})
    return Row(
        table=table,
        columns=columns,
        row=label,
        group=entry.get("group"),
        paper={metric: _number(value) for metric, value in printed.items()},
        tolerance=_tolerance(entry.get("tolerance"), printed.get("params")),
        source=entry.get("source"),
        reported=reported,
        star=star if entry.get("starred") else None,
        note=entry.get("note"),
        model=model,
        overrides=entry.get("overrides", {}),
        data=source,
        options=entry.get("options", {}),
        image_size=_size(entry["image_size"]) if "image_size" in entry else native,
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
    return float(round(float(match[1]) * 1e6)) if match else float(printed)


def _tolerance(stated: Any, printed: Any) -> float:
    """In parameters.

    >>> _tolerance(None, "28.9 M"), _tolerance("1.5%", "20.0 M"), _tolerance(None, 3566)
    (100000.0, 300000.0, 1.0)
    """
    if isinstance(stated, str):
        return float(stated.rstrip("%")) / 100 * _number(printed)
    if stated is not None:
        return float(stated)
    match = _COUNT.fullmatch(printed) if isinstance(printed, str) else None
    return 10 ** -len(match[2] or "") * 1e6 if match else 1.0


def _size(text: str) -> tuple[int, int]:
    """Height and width.

    >>> _size("256x512")
    (256, 512)
    """
    height, _, width = text.partition("x")
    return int(height), int(width)
