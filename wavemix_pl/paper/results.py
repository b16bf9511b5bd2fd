"""What was measured: `experiments/results/*.csv`, a line for each number, with where it comes from."""

from __future__ import annotations

import csv
import io
import os
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from filelock import FileLock

from wavemix_pl.errors import InputError
from wavemix_pl.paper.catalog import rows_like
from wavemix_pl.paper.rows import Row, stem_of

SCORES = ("acc1", "miou")  # of these the best of several seeds counts (Section 4.1); of the others the newest


@dataclass(frozen=True)
class Result:
    """One measured number.

    Attributes:
        table: As in `Row`, in text.
        group: As in `Row`; empty for None.
        row: As in `Row`.
        metric: Column of the table.
        value: In the unit of the paper's number.
        recipe: Configs of `experiments/recipes`, joined by "+"; "benchmark" for what needs no training.
        flags: What the command said beside the row, but for what changes no number; empty for the row as it is.
        seed: Of the run; empty for what needs no training.
        epochs: That were trained; likewise.
        wall_s: Seconds of training, all sessions of an interrupted run together; of a benchmark, of the median step.
        device: Name of the processor or GPU, and how many.
        precision: Of the trainer, or of the benchmark.
        batch_size: Images per step.
        date: Day, in ISO's form.
        commit: Of this repository; "+" for changes that were not committed.
        versions: Of Python, torch, lightning and this package.
        config_hash: Of the run's whole configuration but for its seed and directories, or of the benchmark's options.
        run: Directory of the run, or "-".
        line: Where it stands below `experiments`, such as "results/table05.csv#L2"; no column.
    """

    table: str
    group: str
    row: str
    metric: str
    value: float
    recipe: str
    flags: str
    seed: str
    epochs: str
    wall_s: float
    device: str
    precision: str
    batch_size: str
    date: str
    commit: str
    versions: str
    config_hash: str
    run: str
    line: str = field(default="", compare=False)

    def belongs_to(self, row: Row) -> bool:
        """Whether it was measured of a row."""
        return (self.table, self.group, self.row) == (str(row.table), row.group or "", row.row)

    def follows(self, row: Row) -> bool:
        """Whether it was measured under the row's own recipe, with nothing changed."""
        return not self.flags and self.recipe in ("benchmark", "+".join(row.recipe))


_COLUMNS = [column.name for column in fields(Result) if column.name != "line"]


def results_file(folder: Path, table: int | str) -> Path:
    """Where the results of a table stand."""
    return folder / "results" / f"{stem_of(table)}.csv"


def read_results(path: Path) -> tuple[list[Result], list[str]]:
    """All numbers in a file, and what is wrong with each of its lines that cannot be read. No file has none."""
    if not path.exists():
        return [], []
    results, broken = [], []
    lines = path.read_text(errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        if number == 1 and line == ",".join(_COLUMNS):
            continue
        try:
            results.append(_parse(line, f"{path.parent.name}/{path.name}#L{number}"))
        except (ValueError, csv.Error) as error:
            broken.append(f"{path}:{number}: not read: {error}")
    return results, broken


def _parse(line: str, place: str) -> Result:
    cells = next(csv.reader([line], strict=True), [])
    if len(cells) != len(_COLUMNS):
        raise ValueError(f"{len(cells)} cells instead of {len(_COLUMNS)}")
    entry = dict(zip(_COLUMNS, cells, strict=True))
    values = {name: float(entry.pop(name)) for name in ("value", "wall_s")}
    if not all(value == value and abs(value) != float("inf") for value in values.values()):
        raise ValueError("a number that is none")
    return Result(**entry, **values, line=place)  # type: ignore[arg-type]  # two types of values in one mapping


def append_results(path: Path, results: Iterable[Result]) -> None:
    """Writes numbers at the end of a file, whole lines only, also when several runs end at once.

    Raises:
        InputError: The file cannot be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    for result in results:
        writer.writerow({name: _rounded(getattr(result, name)) for name in _COLUMNS})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")), path.open("ab+") as file:
            empty = file.seek(0, os.SEEK_END) == 0
            if not empty:
                file.seek(-1, os.SEEK_END)
            cut_off = not empty and file.read(1) != b"\n"  # by a full disk, say: what follows stays readable
            head = ",".join(_COLUMNS) + "\n" if empty else "\n" * cut_off
            file.write((head + text.getvalue()).encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}): the runs are whole, repeat the command"
        ) from None


def _rounded(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else value


class Ledger:
    """All recorded numbers.

    Args:
        folder: `experiments`.

    Attributes:
        broken: What is wrong with each line that cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.broken: list[str] = []
        self._results: dict[tuple[str, str, str], list[Result]] = {}
        for path in sorted((folder / "results").glob("*.csv")):
            results, broken = read_results(path)
            self.broken += broken
            for result in results:
                self._results.setdefault((result.table, result.group, result.row), []).append(result)

    def of(self, row: Row) -> list[Result]:
        """What was measured of a row, under its own name or that of a row which the same run serves."""
        found = []
        for like in rows_like(row):
            for result in self._results.get((str(like.table), like.group or "", like.row), []):
                options = like.benchmark.get(result.metric), row.benchmark.get(result.metric)
                if result.recipe != "benchmark" or options[0] == options[1]:
                    found.append(result)
        return found


@dataclass(frozen=True)
class Summary:
    """Several measurements of one number.

    Attributes:
        value: The best of scores, the newest of anything else.
        mean: Over seeds, as is the rest.
        std: Standard deviation (of a sample), or None for a single one.
        results: What it is made of.
    """

    value: float
    mean: float
    std: float | None
    results: list[Result]


def summarize(results: Sequence[Result], metric: str) -> Summary | None:
    """The numbers of one metric together, the newest of each seed; None without any."""
    newest = list({result.seed: result for result in results if result.metric == metric}.values())
    if not newest:
        return None
    values = [result.value for result in newest]
    value = max(values) if metric in SCORES else values[-1]
    return Summary(value, statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, newest)
