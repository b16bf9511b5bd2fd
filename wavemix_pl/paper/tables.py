"""The verb `tables`: the paper's numbers beside ours."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from wavemix_pl.config import WaveMixConfig
from wavemix_pl.errors import InputError
from wavemix_pl.models.baselines import build_model
from wavemix_pl.paper.catalog import experiments_folder, find_table, load_tables
from wavemix_pl.paper.results import SCORES, Ledger, Result, Summary, summarize
from wavemix_pl.paper.rows import Row, Table, Task, name_of
from wavemix_pl.parser import Parser


@dataclass(frozen=True)
class Compared:
    """A row with our numbers.

    Attributes:
        row: The paper's.
        params: Counted now, or None for what cannot be built.
        measured: Metric -> what was measured under the row's own recipe.
        variants: Recipe and flags, in words -> metric -> what was measured with them.
        problem: Why the parameters could not be counted.
    """

    row: Row
    params: int | None
    measured: dict[str, Summary]
    variants: dict[str, dict[str, Summary]]
    problem: str | None = None

    @property
    def agrees(self) -> bool | None:
        """Whether the count lies within the row's tolerance; None where there is nothing to compare."""
        printed = self.row.paper.get("params")
        return None if self.params is None or printed is None else abs(self.params - printed) <= self.row.tolerance

    def ours(self, metric: str) -> float | None:
        """Our number, in the unit of the paper's."""
        if metric == "params":
            return self.params
        return self.measured[metric].value if metric in self.measured else None


def compare(table: Table, ledger: Ledger) -> list[Compared]:
    """All rows of a table with our numbers."""
    return _with_changes(table, [_compare(row, ledger.of(row)) for row in table.rows])


def _compare(row: Row, results: Sequence[Result]) -> Compared:
    others: dict[str, list[Result]] = {}
    for result in results:
        if not result.follows(row):
            others.setdefault(f"{result.recipe} {result.flags}".strip(), []).append(result)
    variants = {how: _summaries(some) for how, some in others.items()}
    params, problem = None, None
    try:
        params = count_params(row)
    except InputError as error:  # a library is not installed
        problem = str(error)
    return Compared(row, params, _summaries([r for r in results if r.follows(row)]), variants, problem)


def _summaries(results: Sequence[Result]) -> dict[str, Summary]:
    found = {metric: summarize(results, metric) for metric in dict.fromkeys(result.metric for result in results)}
    return {metric: summary for metric, summary in found.items() if summary}


def _with_changes(table: Table, compared: list[Compared]) -> list[Compared]:
    """Fills the columns `*_change`: points of a score, percent of anything else, from the row of reference."""
    reference = next((entry for entry in compared if entry.row.row == table.reference), None)
    for column in table.columns:
        metric = column.removesuffix("_change")
        base = reference.measured.get(metric) if reference and metric != column else None
        for entry in compared:
            own = entry.measured.get(metric)
            if base and own and entry is not reference:
                change = own.value - base.value if metric == "acc1" else 100 * (own.value / base.value - 1)
                entry.measured[column] = Summary(change, change, None, [*own.results, *base.results])
    return compared


def count_params(row: Row) -> int | None:
    """Trainable parameters of a row's model, counted without making them; None for what cannot be built."""
    if row.model is None or row.data is None:
        return None
    overrides = {"in_channels": row.data.channels, **row.overrides}
    if not row.model.casefold().startswith("wavemix"):
        return _count(row.model, row.data.classes, row.task, overrides)
    depth = WaveMixConfig.from_notation(row.model).depth
    one, two = (_count(row.model, row.data.classes, row.task, {**overrides, "depth": blocks}) for blocks in (1, 2))
    return one + (depth - 1) * (two - one)  # all blocks are alike: to make two of them is enough, and faster


def _count(model: str, classes: int, task: Task, overrides: dict[str, Any]) -> int:
    with torch.device("meta"):
        made = build_model(model, classes, task, overrides)
    return sum(parameter.numel() for parameter in made.parameters() if parameter.requires_grad)


def as_entry(compared: Compared) -> dict[str, Any]:
    """A row as `--json` prints it."""
    row = compared.row
    metrics = [metric for metric in row.paper if not metric.startswith("previous_")]
    metrics += [metric for metric in compared.measured if metric not in metrics]
    ours = {metric: compared.ours(metric) for metric in metrics}
    if compared.params is not None:
        ours["params"] = compared.params
    return {
        "table": row.table,
        "row": row.row,
        "group": row.group,
        "paper": row.paper,
        "ours": ours,
        "agrees": compared.agrees,
        "tolerance": row.tolerance if "params" in row.paper else None,
        "model": row.model,
        "data": row.data.name if row.data else None,
        "image_size": list(row.image_size) if row.image_size else None,
        "recipe": list(row.recipe),
        "star": row.star,
        "source": row.reported or row.source,
        "note": row.note,
        "runs": {metric: _runs(summary) for metric, summary in compared.measured.items()},
        "variants": {
            how: {metric: _runs(summary) for metric, summary in of_metrics.items()}
            for how, of_metrics in compared.variants.items()
        },
    }


def _runs(summary: Summary) -> dict[str, Any]:
    results = [vars(result) for result in summary.results]
    return {"value": summary.value, "mean": summary.mean, "std": summary.std, "results": results}


def shown(value: float | None, metric: str) -> str:
    """A number for people.

    >>> shown(7156, "params"), shown(28886824, "params"), shown(95.42, "acc1"), shown(None, "acc1")
    ('7,156', '28.89 M', '95.42', '')
    """
    if value is None:
        return ""
    if metric.endswith("params"):
        rounded = value >= 1e6 or (value and value % 1e4 == 0)  # by the paper, to hundredths of a million
        return f"{value / 1e6:.2f} M" if rounded else f"{value:,.0f}"
    if metric.endswith("_change"):
        return f"{value:+.3g}"
    if metric in ("acc1", "miou") or metric.startswith("previous_"):
        return f"{value:.2f}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def shown_ours(compared: Compared, metric: str) -> str:
    """Our number for people: of several seeds with mean and standard deviation; a dash where nothing was measured."""
    value = compared.ours(metric)
    if value is None:
        return "-" if compared.row.model and not metric.startswith("previous_") else ""
    summary = compared.measured.get(metric)
    spread = ""
    if summary and summary.std is not None:
        spread = f" ({summary.mean:.2f} ± {summary.std:.2f}, {len(summary.results)} seeds)"
    wrong = " !" if metric == "params" and compared.agrees is False else ""
    return shown(value, metric) + spread + wrong


def remarks(compared: Compared) -> str:
    """What stands in the last column: source, star, note, and measurements under other conditions."""
    row = compared.row
    reported = f"reported, {row.reported}" if row.reported else None
    parts = [reported, row.star and f"* {row.star}", row.source, row.note, compared.problem, *_places(compared)]
    for how, of_metrics in compared.variants.items():
        values = ", ".join(f"{metric} {shown(summary.value, metric)}" for metric, summary in of_metrics.items())
        parts.append(f"with {how}: {values}")
    return "; ".join(part for part in parts if part)


def _places(compared: Compared) -> list[str]:
    """On what our measurements of time and memory were made, and which they are."""
    found: dict[str, list[str]] = {}
    for metric, summary in compared.measured.items():
        newest = summary.results[-1]
        if metric not in SCORES and not metric.endswith("_change"):
            place = f"{newest.device}, {newest.precision}, batches of {newest.batch_size}"
            found.setdefault(place, []).append(metric)
    return [f"ours: {', '.join(metrics)} on {place}" for place, metrics in found.items()]


def grid(table: Table, compared: Sequence[Compared]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of a table: for each metric the paper's number and ours."""
    grouped = any(entry.row.group for entry in compared)
    headings = (["group"] if grouped else []) + ["row"]
    for metric, title in table.columns.items():
        headings += [f"{title}: paper"] + ([] if metric.startswith("previous_") else ["ours"])
    lines = []
    for entry in compared:
        cells = [entry.row.group or ""] if grouped else []
        cells.append(entry.row.row + "*" * bool(entry.row.star))
        for metric in table.columns:
            cells.append(shown(entry.row.paper.get(metric), metric))
            cells += [] if metric.startswith("previous_") else [shown_ours(entry, metric)]
        lines.append([*cells, remarks(entry)])
    return [*headings, ""], lines


def as_markdown(table: Table, compared: Sequence[Compared]) -> str:
    """A table in Markdown, with its title."""
    headings, lines = grid(table, compared)
    cells = [headings, ["---"] * len(headings), *lines]
    body = "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in cells)
    return f"### {name_of(table.table)}. {table.title}\n\n{body}\n"


def run(arguments: list[str]) -> None:
    """The verb `tables`."""
    parser = Parser(
        prog="wavemix-pl tables",
        description="The paper's tables, our numbers beside them: parameters are counted now, the rest was measured.",
    )
    parser.add_argument("table", nargs="?", help="1 to 14 (default: all), or a section with numbers: 4.3, 4.6.")
    parser.add_argument("--json", action="store_true", help="Print JSON instead of tables.")
    parser.add_argument("--markdown", action="store_true", help="Print Markdown instead.")
    parser.add_argument("--check", action="store_true", help="End with exit code 1 where a count disagrees.")
    options = parser.parse_args(arguments[1:])
    numbered = [table for table in load_tables().values() if isinstance(table.table, int)]
    tables = [find_table(options.table)] if options.table else numbered
    if options.json and options.markdown:
        raise InputError("choose one of --json and --markdown")
    ledger = Ledger(experiments_folder())
    for message in ledger.broken:
        print(f"wavemix-pl: {message}", file=sys.stderr)
    compared = {table.table: compare(table, ledger) for table in tables}
    everything = [entry for entries in compared.values() for entry in entries]
    if options.json:
        print(json.dumps([as_entry(entry) for entry in everything], indent=2))
    else:
        for table in tables:
            entries = compared[table.table]
            print(as_markdown(table, entries)) if options.markdown else _print(table, entries)
    if options.check:
        _check(everything)


def _print(table: Table, compared: Sequence[Compared]) -> None:
    headings, lines = grid(table, compared)
    drawn = RichTable(*headings, title=f"{name_of(table.table)}. {table.title}", title_justify="left")
    for column, heading in zip(drawn.columns, headings, strict=True):
        column.justify = "right" if heading == "ours" or heading.endswith(": paper") else "left"
    for line in lines:
        drawn.add_row(*map(escape, line))
    Console(width=None if sys.stdout.isatty() else 200).print(drawn)


def _check(everything: Sequence[Compared]) -> None:
    judged = [entry for entry in everything if entry.agrees is not None]
    wrong = [entry for entry in judged if not entry.agrees]
    for entry in wrong:
        printed = entry.row.paper["params"]
        print(f"{entry.row}: {entry.params:,} parameters, the paper has {printed:,.0f}", file=sys.stderr)
    for problem in sorted({entry.problem for entry in everything if entry.problem}):
        print(f"not counted: {problem}", file=sys.stderr)
    print(f"{len(judged)} parameter counts compared, {len(wrong)} differ by more than their tolerance", file=sys.stderr)
    if wrong:
        raise SystemExit(1)
