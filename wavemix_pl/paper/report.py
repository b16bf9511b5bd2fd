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
from wavemix_pl.paper.rows import Table, name_of
from wavemix_pl.paper.tables import as_markdown, columns, headings, markdown_table, remarks, shown, shown_ours
from wavemix_pl.parser import Parser

_BEGIN, _END = "<!-- results: begin, written by 'wavemix-pl report --readme' -->", "<!-- results: end -->"
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --link: light-dark(#0550ae, #79b8ff); }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0 2.5rem; font-size: .9rem; display: block; overflow-x: auto; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .6rem; text-align: left; vertical-align: top; }
th { border-bottom-width: 2px; } td.number { text-align: right; white-space: nowrap; }
tr:hover td { background: var(--soft); } tr:target td { background: #fc03; }
td.remark { font-size: .85em; opacity: .75; max-width: 28rem; } .missing { opacity: .4; } .wrong { color: #c33; }
a { color: var(--link); } figure { margin: 1rem 0; } figure svg { max-width: 100%; height: auto; }
figcaption { font-size: .9rem; opacity: .75; }
""".strip()


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
    judged_claims = [judged for table, compared in everything for judged in judge(table, compared)]
    if any(judged.difference is not None for judged in judged_claims):
        lines += ["", markdown_table(*claims_grid(judged_claims))]
    return "\n".join(lines)


def as_html(everything: Sequence[tuple[Table, Sequence[Compared]]]) -> str:
    """One page that needs no other file."""
    results = _all_results(everything)
    numbers = {id(result): f"r{place}" for place, result in enumerate(results, start=1)}
    parts = [f"<figure>{svg}<figcaption>{escape(text)}</figcaption></figure>" for text, svg in tradeoffs(everything)]
    for table, compared in everything:
        parts.append(f"<h2>{name_of(table.table)}. {escape(table.title)}</h2>")
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
    rows = [_html_row("th", headings(table))]
    for entry in compared:
        cells = [f"<td>{escape(entry.row.group or '')}</td>"] * grouped
        cells.append(f"<td>{escape(entry.row.row)}{'*' * bool(entry.row.star)}</td>")
        for metric, ours in columns(table):
            printed = f'<td class="number">{shown(entry.row.paper.get(metric), metric)}</td>'
            cells.append(_html_ours(entry, metric, numbers) if ours else printed)
        rows.append("<tr>" + "".join(cells) + f'<td class="remark">{escape(remarks(entry))}</td></tr>')
    parts = [rows]
    if table.claims:
        heads, lines = claims_grid(judge(table, compared))
        parts.append([_html_row("th", heads), *(_html_row("td", line) for line in lines)])
    return "\n".join("<table>\n" + "\n".join(part) + "\n</table>" for part in parts)


def _html_row(tag: str, cells: Iterable[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _html_ours(entry: Compared, metric: str, numbers: dict[int, str]) -> str:
    text = escape(shown_ours(entry, metric))
    if metric in entry.measured:
        results = entry.measured[metric].results
        best = max(results, key=lambda result: result.value == entry.measured[metric].value)
        text = f'<a href="#{numbers[id(best)]}">{text}</a>'
    kind = "missing" if text == "-" else "wrong" if metric == "params" and entry.agrees is False else ""
    return f'<td class="number {kind}">{text}</td>'


def _html_provenance(results: Sequence[Result]) -> str:
    if not results:
        return "<h2>Runs</h2>\n<p>None is recorded yet.</p>"
    names = [column.name for column in fields(Result) if column.name != "run"]
    rows = [_html_row("th", (name.replace("_", " ") for name in names))]
    for number, result in enumerate(results, start=1):
        cells = "".join(f"<td>{escape(str(getattr(result, name)))}</td>" for name in names)
        rows.append(f'<tr id="r{number}">{cells}</tr>')
    return "<h2>Runs</h2>\n<table>\n" + "\n".join(rows) + "\n</table>"


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
