"""The verb `report`: all tables as Markdown, and as one HTML page with plots, each number with where it comes from."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import fields
from html import escape
from pathlib import Path

from wavemix_pl.errors import InputError
from wavemix_pl.paper.catalog import experiments_folder, load_tables
from wavemix_pl.paper.claims import claims_grid, judge
from wavemix_pl.paper.comparison import Compared, compare
from wavemix_pl.paper.plots import tradeoffs
from wavemix_pl.paper.results import Ledger, Result
from wavemix_pl.paper.rows import Table, name_of, stem_of
from wavemix_pl.paper.tables import as_markdown, columns, headings, markdown_table, remarks, shown, shown_ours
from wavemix_pl.parser import Parser

_BEGIN, _END = "<!-- results: begin, written by 'wavemix-pl report --readme' -->", "<!-- results: end -->"
_STYLE = """
:root { color-scheme: light dark; --page: #fff; --ink: #1b1f24; --muted: #59636e; --line: #d0d7de; --soft: #f3f5f7;
  --target: #fff3c4; --link: #0550ae; --good: #116329; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --page: #14171c; --ink: #e6e9ec; --muted: #a3adb8; --line: #3a424c;
  --soft: #1e232a; --target: #4a3b05; --link: #79b8ff; --good: #6fd58a; --bad: #ff8f85; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem;
  background: var(--page); color: var(--ink); overflow-wrap: break-word; }
h1, h2 { line-height: 1.25; } h2 { margin-top: 3rem; }
table, figure { display: block; overflow-x: auto; margin: 1rem 0 2rem; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .5rem; text-align: left; vertical-align: top; }
th { border-bottom-width: 2px; } td { white-space: nowrap; } .number { text-align: right; }
tr:hover td { background: var(--soft); } tr:target td { background: var(--target); }
td.remark { font-size: .85em; max-width: 28rem; white-space: normal; } td.remark:not(:empty) { min-width: 11rem; }
@media (max-width: 40rem) { td:not(.number) { white-space: normal; min-width: 6rem; }
  #runs ~ table td { white-space: nowrap; min-width: 0; } }
figure svg { display: block; width: 100%; min-width: 40rem; max-width: 48rem; height: auto; }
.remark, .missing, figcaption { color: var(--muted); } .good { color: var(--good); } .bad { color: var(--bad); }
a { color: var(--link); } nav a { margin-right: .75rem; white-space: nowrap; display: inline-block; }
""".strip()
_KINDS = {"holds": "good", "does not hold": "bad", "not measured": "missing", "-": "missing"}  # of a claim's cells


def summary(everything: Sequence[tuple[Table, Sequence[Compared]]]) -> str:
    """What the README shows, in Markdown: which counts agree, what was measured of the paper's rows, and verdicts."""
    entries = [entry for table, compared in everything if table.printed for entry in compared]
    judged = [entry for entry in entries if entry.agrees is not None]
    as_printed = sum(1 for entry in judged if entry.agrees)
    lines = [
        f"Of {len(judged)} parameter counts, {as_printed} agree with the paper's within the tolerance that their row "
        "states (`wavemix-pl tables --check`)."
    ]
    measured = [(entry, metric) for entry in entries for metric in entry.measured]
    if not measured:
        return "\n".join([*lines, "No accuracy has been measured under a row's own recipe yet."])
    lines += ["", "| | row | paper | ours | runs |", "| --- | --- | --- | --- | --- |"]
    for entry, metric in measured:
        results = entry.measured[metric].results
        links = ", ".join(f"[{result.seed or result.date}](experiments/{result.line})" for result in results)
        title = f"{entry.row.row}{f', {entry.row.group}' if entry.row.group else ''}: {metric}"
        paper = shown(entry.row.paper.get(metric), metric)
        lines.append(f"| {name_of(entry.row.table)} | {title} | {paper} | {shown_ours(entry, metric)} | {links} |")
    rule = "A claim holds where all runs of the one row lie above all of the other, and does not where all lie below."
    for table, compared in everything:
        if told := [claim for claim in judge(table, compared) if claim.difference is not None]:
            about = f"{table.title} (`wavemix-pl tables {table.table}`). {rule}".rstrip()
            lines += ["", about, "", markdown_table(*claims_grid(told))]
            rule = ""  # once
    return "\n".join(lines)


def as_html(everything: Sequence[tuple[Table, Sequence[Compared]]]) -> str:
    """One page that needs no other file."""
    results = _all_results(everything)
    numbers = {id(result): f"r{place}" for place, result in enumerate(results, start=1)}
    plots = list(tradeoffs(everything))
    places = {stem_of(table.table): name_of(table.table) for table, _ in everything} | {"runs": "Runs"}
    parts = ["<nav>" + "".join(f'<a href="#{place}">{name}</a>' for place, name in places.items()) + "</nav>"]
    for table, compared in everything:
        parts.append(f'<h2 id="{stem_of(table.table)}">{name_of(table.table)}. {escape(table.title)}</h2>')
        parts += [
            f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"
            for of_table, caption, svg in plots
            if of_table == table.table
        ]
        parts.append(_html_table(table, compared, numbers))
    parts.append(_html_provenance(results))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<title>WaveMix: the paper's tables</title>\n"
        f"<style>\n{_STYLE}\n</style>\n</head>\n<body>\n<h1>WaveMix: the paper's tables, and our numbers</h1>\n"
        "<p>Parameters are counted when this page is written. Other numbers of ours link to the runs that gave them; a "
        "dash is a number that nobody has measured yet.</p>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def _all_results(everything: Sequence[tuple[Table, Sequence[Compared]]]) -> list[Result]:
    found: dict[int, Result] = {}
    for _, compared in everything:
        for entry in compared:
            for metrics in (entry.measured, *entry.variants.values()):
                for measured in metrics.values():
                    found |= {id(result): result for result in measured.results}
    return sorted(found.values(), key=_place)


def _place(result: Result) -> tuple[str, int]:
    file, _, number = result.line.partition("#L")
    return file, int(number or 0)


def _html_table(table: Table, compared: Sequence[Compared], numbers: dict[int, str]) -> str:
    grouped = any(row.group for row in table.rows)
    names = headings(table)
    numeric = range(len(names) - 1 - len(columns(table)), len(names) - 1)  # the last column is that of remarks
    rows = [_html_row(_html_cell("th", name, "number" * (i in numeric)) for i, name in enumerate(names))]
    for entry in compared:
        cells = [_html_cell("td", entry.row.group or "")] * grouped
        cells.append(_html_cell("td", entry.row.row + "*" * bool(entry.row.star)))
        for metric, ours in columns(table):
            printed = _html_cell("td", shown(entry.row.paper.get(metric), metric), "number")
            cells.append(_html_ours(entry, metric, numbers) if ours else printed)
        rows.append(_html_row([*cells, _html_cell("td", remarks(entry), "remark")]))
    claims = [_html_claims(table, compared)] if table.claims else []
    return "\n".join([f"<table>\n{''.join(rows)}</table>", *claims])


def _html_claims(table: Table, compared: Sequence[Compared]) -> str:
    names, lines = claims_grid(judge(table, compared))
    rows = [_html_row(_html_cell("th", name) for name in names)]
    rows += [_html_row(_html_cell("td", cell, _KINDS.get(cell, "")) for cell in line) for line in lines]
    return f"<table>\n{''.join(rows)}</table>"


def _html_cell(tag: str, text: str, kind: str = "") -> str:
    return f'<{tag} class="{kind}">{escape(text)}</{tag}>' if kind else f"<{tag}>{escape(text)}</{tag}>"


def _html_row(cells: Iterable[str], place: str = "") -> str:
    attribute = f' id="{place}"' if place else ""
    return f"<tr{attribute}>{''.join(cells)}</tr>\n"


def _html_ours(entry: Compared, metric: str, numbers: dict[int, str]) -> str:
    text = escape(shown_ours(entry, metric))
    if metric in entry.measured:
        results = entry.measured[metric].results
        best = max(results, key=lambda result: result.value == entry.measured[metric].value)
        text = f'<a href="#{numbers[id(best)]}">{text}</a>'
    kind = " missing" if text == "-" else " bad" if metric == "params" and entry.agrees is False else ""
    return f'<td class="number{kind}">{text}</td>'


def _html_provenance(results: Sequence[Result]) -> str:
    title = '<h2 id="runs">Runs</h2>\n'
    if not results:
        return title + "<p>None is recorded yet.</p>"
    names = [column.name for column in fields(Result) if column.name != "run"]
    rows = [_html_row(_html_cell("th", name.replace("_", " ")) for name in names)]
    for number, result in enumerate(results, start=1):
        rows.append(_html_row((_html_cell("td", str(getattr(result, name))) for name in names), f"r{number}"))
    return f"{title}<table>\n{''.join(rows)}</table>"


def update_readme(path: Path, text: str) -> None:
    """Puts a text between the two marks of a file.

    Raises:
        InputError: It has not both marks.
    """
    content = path.read_text() if path.is_file() else ""
    before, begin, rest = content.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end):
        raise InputError(f"{path} needs the lines {_BEGIN!r} and {_END!r} around the place of the results")
    path.write_text(f"{before}{_BEGIN}\n\n{text}\n\n{_END}{after}")


def run(arguments: list[str]) -> None:
    """The verb `report`."""
    parser = Parser(prog="wavemix-pl report", description="Writes all tables, ours beside the paper's numbers.")
    parser.add_argument("--output", default="runs/report", help="Folder for tables.md and tables.html.")
    parser.add_argument("--readme", metavar="FILE", help="Also writes the measured numbers into it, between two marks.")
    options = parser.parse_args(arguments[1:])
    ledger = Ledger(experiments_folder())
    for message in ledger.broken:
        print(f"wavemix-pl: {message}", file=sys.stderr)
    everything = [(table, compare(table, ledger)) for table in load_tables().values()]
    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "tables.md": "\n".join(as_markdown(table, compared) for table, compared in everything),
        "tables.html": as_html(everything),
    }
    for name, content in contents.items():
        (folder / name).write_text(content)
        print(folder / name)
    if options.readme:
        update_readme(Path(options.readme), summary(everything))
        print(options.readme)
