"""`metrics.csv`: one file for one run, in however many parts it was trained."""

from __future__ import annotations

import csv
import io
from argparse import Namespace
from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor


class MetricsFile(Logger):
    """Writes a row of `metrics.csv` for whatever is logged, at once; the columns are sorted.

    The file is of the same form as that of Lightning's CSVLogger, which deletes what an interrupted run has written.
    Here a run that goes on appends. Rows that it does not go on from, since they came after the checkpoint or are
    another run's, are put aside into `metrics.1.csv` and so on.

    Args:
        directory: In which the file lies.
    """

    def __init__(self, directory: str | Path) -> None:
        super().__init__()
        self._path = Path(directory, "metrics.csv")
        self._rows = 0  # of this run, in the file
        self._columns: list[str] | None = None  # None until something is logged: then the file is opened

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self._path.parent)

    @property
    def rows(self) -> int:
        return self._rows

    def go_on(self, rows: int) -> None:
        """Says how many rows of the file that is there are those of the run."""
        self._rows = rows

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """They stand in the run's config."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        if self._columns is None:
            self._open()
        assert self._columns is not None
        values = {name: value.item() if isinstance(value, Tensor) else value for name, value in metrics.items()}
        row = {**values, "step": self._rows if step is None else step}
        if row.keys() <= {*self._columns}:
            with self._path.open("a", newline="") as file:
                file.write(_lines(self._columns, [row]))
        else:
            rows = _read(self._path)[1] if self._path.exists() else []
            self._columns = sorted({*self._columns, *row})
            self._write(self._path, [*rows, row])
        self._rows += 1

    def _open(self) -> None:
        self._columns = []
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if not self._path.exists():
            self._rows = 0
            return
        self._columns, rows = _read(self._path)
        kept, others = rows[: self._rows], rows[self._rows :]
        self._rows = len(kept)
        if others:
            names = (self._path.with_name(f"metrics.{number}.csv") for number in count(1))
            self._write(next(name for name in names if not name.exists()), others)
            self._write(self._path, kept)

    def _write(self, path: Path, rows: list[dict[str, Any]]) -> None:
        """Writes a whole file, or none."""
        assert self._columns is not None
        unfinished = path.with_name(f"{path.name}.part")
        try:
            with unfinished.open("w", newline="") as file:
                file.write(_lines(self._columns, [dict(zip(self._columns, self._columns, strict=True)), *rows]))
        except OSError:
            unfinished.unlink()
            raise
        unfinished.replace(path)


def _read(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        return list(reader.fieldnames or []), list(reader)


def _lines(columns: list[str], rows: Iterable[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    csv.DictWriter(text, columns, extrasaction="ignore").writerows(rows)
    return text.getvalue()
