"""One file of metrics for one run: appended to, cut where the run goes on, and never torn."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from wavemix_pl.metrics_file import MetricsFile

ROWS: list[dict[str, Any]] = [
    {"val_loss": 0.5, "epoch": 0},
    {"train_loss": torch.tensor(0.25), "epoch": 0},
    {"val_loss": 1.0, "epoch": 1},
    {"train_loss": 2.0, "epoch": 1},
]


def write(directory: Path, rows: range, kept: int = 0) -> MetricsFile:
    file = MetricsFile(directory)
    file.go_on(kept)
    for number in rows:
        file.log_metrics(ROWS[number], step=number)
    return file


def losses(path: Path) -> list[str]:
    with path.open() as file:
        return [row["val_loss"] or row["train_loss"] for row in csv.DictReader(file)]


def test_the_same_file_as_lightnings(tmp_path: Path) -> None:
    write(tmp_path / "ours", range(4))
    theirs = CSVLogger(tmp_path / "theirs", name="", version="")
    for number, row in enumerate(ROWS):
        theirs.log_metrics(row, step=number)
        theirs.save()
    assert (tmp_path / "ours" / "metrics.csv").read_bytes() == (tmp_path / "theirs" / "metrics.csv").read_bytes()


def test_in_parts(tmp_path: Path) -> None:
    """The second part goes on after the second row; the third and a torn fourth are put aside, and written again."""
    write(tmp_path / "whole", range(4))
    assert write(tmp_path / "parts", range(3)).rows == 3
    path = tmp_path / "parts" / "metrics.csv"
    with path.open("a") as file:
        file.write("1,3")
    assert write(tmp_path / "parts", range(2, 4), kept=2).rows == 4
    assert path.read_bytes() == (tmp_path / "whole" / "metrics.csv").read_bytes()
    assert losses(path.with_name("metrics.1.csv")) == ["1.0", ""]


def test_another_run_is_put_aside(tmp_path: Path) -> None:
    for part in range(3):
        write(tmp_path, range(part, part + 2))
    assert losses(tmp_path / "metrics.csv") == ["1.0", "2.0"]
    assert losses(tmp_path / "metrics.1.csv") == ["0.5", "0.25"]
    assert losses(tmp_path / "metrics.2.csv") == ["0.25", "1.0"]


def test_what_logs_nothing_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path, range(2))
    before = (tmp_path / "metrics.csv").read_bytes()
    assert write(tmp_path, range(0), kept=1).rows == 1
    assert (tmp_path / "metrics.csv").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_fewer_rows_than_the_run_had(tmp_path: Path) -> None:
    """In a directory without the file, or with a shorter one, what is there is kept."""
    assert write(tmp_path, range(1), kept=7).rows == 1
    assert write(tmp_path, range(1, 2), kept=7).rows == 2
    assert losses(tmp_path / "metrics.csv") == ["0.5", "0.25"]


@pytest.mark.parametrize("content", ["", "epoch,step\r\n"])
def test_an_empty_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "metrics.csv").write_text(content, newline="")
    write(tmp_path, range(2))
    assert losses(tmp_path / "metrics.csv") == ["0.5", "0.25"]
