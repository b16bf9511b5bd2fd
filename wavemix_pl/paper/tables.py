"""The verb `tables`: the paper's numbers beside ours."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from wavemix_pl.errors import InputError
from wavemix_pl.paper.catalog import experiments_folder, find_table, load_tables
from wavemix_pl.paper.claims import claims_grid, judge
from wavemix_pl.paper.comparison import Compared, compare
from wavemix_pl.paper.results import SCORES, Ledger, Summary
from wavemix_pl.paper.rows import Table, name_of
from wavemix_pl.parser import Parser


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


def columns(table: Table) -> list[tuple[str, bool]]:
    """Each metric for the paper's number, where it prints any, and for ours, as (metric, whether ours)."""
    sides = (False, True) if table.printed else (True,)
    return [(m, ours) for m in table.columns for ours in sides if not (ours and m.startswith("previous_"))]


def headings(table: Table) -> list[str]:
    """Of `columns`, and of what stands before and behind them."""
    grouped = any(row.group for row in table.rows)
    names = [
        "ours" if ours and table.printed else table.columns[metric] + ": paper" * table.printed
        for metric, ours in columns(table)
    ]
    return ["group"] * grouped + ["row", *names, ""]


def grid(table: Table, compared: Sequence[Compared]) -> list[list[str]]:
    """The cells below the headings."""
    grouped = any(row.group for row in table.rows)
    lines = []
    for entry in compared:
        cells = [entry.row.group or ""] * grouped + [entry.row.row + "*" * bool(entry.row.star)]
        for metric, ours in columns(table):
            cells.append(shown_ours(entry, metric) if ours else shown(entry.row.paper.get(metric), metric))
        lines.append([*cells, remarks(entry)])
    return lines


def as_markdown(table: Table, compared: Sequence[Compared]) -> str:
    """A table in Markdown, with its title."""
    parts = [f"### {name_of(table.table)}. {table.title}", markdown_table(headings(table), grid(table, compared))]
    if table.claims:
        parts.append(markdown_table(*claims_grid(judge(table, compared))))
    return "\n\n".join(parts) + "\n"


def markdown_table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    cells = [heads, ["---"] * len(heads), *lines]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in cells)


def run(arguments: list[str]) -> None:
    """The verb `tables`."""
    parser = Parser(
        prog="wavemix-pl tables",
        description="The paper's tables, our numbers beside them: parameters are counted now, the rest was measured.",
    )
    parser.add_argument(
        "table", nargs="?", help="1 to 14 (default: all), a section with numbers (4.3, 4.6), or one of ours."
    )
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
    console = Console(width=None if sys.stdout.isatty() else 200)
    drawn = RichTable(*headings(table), title=f"{name_of(table.table)}. {table.title}", title_justify="left")
    for column in drawn.columns[-1 - len(columns(table)) : -1]:
        column.justify = "right"
    for line in grid(table, compared):
        drawn.add_row(*map(escape, line))
    console.print(drawn)
    if table.claims:
        heads, lines = claims_grid(judge(table, compared))
        drawn = RichTable(*heads)
        for line in lines:
            drawn.add_row(*map(escape, line))
        console.print(drawn)


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
