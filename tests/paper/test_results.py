"""Recorded numbers: written whole, read back, broken lines named and the rest used."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from wavemix_pl.errors import InputError
from wavemix_pl.paper.catalog import find_rows, find_table
from wavemix_pl.paper.results import Ledger, Result, append_results, read_results, results_file, summarize


def result(value: float = 90.0, seed: str = "0", **changes: Any) -> Result:
    fields: dict[str, Any] = {
        **{"table": "5", "group": "Fashion MNIST", "row": "WaveMix-Lite-8/5", "metric": "acc1", "value": value},
        **{"recipe": "classification", "flags": "", "seed": seed, "epochs": "300", "wall_s": 7000.5},
        **{"device": 'A "CPU", 2 cores', "precision": "32-true", "batch_size": "256", "date": "2026-11-24"},
        **{"commit": "0123456789ab", "versions": "torch 2.14.1", "config_hash": "abc", "run": "runs/a"},
    }
    return Result(**{**fields, **changes})


def test_round_trip(tmp_path: Path) -> None:
    path = results_file(tmp_path, 5)
    assert path == tmp_path / "results" / "table05.csv"
    assert results_file(tmp_path, "4.6").name == "section-4.6.csv"
    assert read_results(path) == ([], [])
    append_results(path, [result(90.125), result(91, seed="1")])
    append_results(path, [result(89, seed="2")])
    found, broken = read_results(path)
    assert found == [result(90.125), result(91, seed="1"), result(89, seed="2")]
    assert [entry.line for entry in found] == [f"results/table05.csv#L{number}" for number in (2, 3, 4)]
    assert not broken


def test_broken_lines_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    path = results_file(tmp_path, 5)
    append_results(path, [result(90), result(91, seed="1"), result(92, seed="2")])
    lines = path.read_text().splitlines()
    lines[2] = lines[2].replace("91", "ninety")
    lines.insert(3, "5,Fashion MNIST,WaveMix-Lite-8/5,acc1,9")
    lines.append(lines[1].replace(",90,", ",nan,"))
    path.write_text("\n".join(lines) + "\n")
    found, broken = read_results(path)
    assert [entry.value for entry in found] == [90, 92]
    assert [message.partition(": ")[0] for message in broken] == [f"{path}:{number}" for number in (3, 4, 6)]
    assert "ninety" in broken[0]
    assert "5 cells instead of 18" in broken[1]


def test_a_line_that_was_cut_off_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = results_file(tmp_path, 5)
    append_results(path, [result(90)])
    path.write_bytes(path.read_bytes()[:-20])
    append_results(path, [result(91, seed="1")])
    found, broken = read_results(path)
    assert [entry.value for entry in found] == [91]
    assert len(broken) == 1


def test_many_writers(tmp_path: Path) -> None:
    path = results_file(tmp_path, 5)
    threads = [threading.Thread(target=append_results, args=(path, [result(i, seed=str(i))] * 20)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found, broken = read_results(path)
    assert len(found) == 160
    assert not broken
    assert path.read_text().count("table,group,row") == 1


def test_unwritable_file(tmp_path: Path) -> None:
    path = results_file(tmp_path, 5)
    path.mkdir(parents=True)
    with pytest.raises(InputError, match=r"table05\.csv: cannot be written"):
        append_results(path, [result()])


def test_summary_is_the_best_with_mean_and_deviation() -> None:
    results = [result(value, seed=str(seed)) for seed, value in enumerate((90, 92, 91))]
    found = summarize(results, "acc1")
    assert found is not None
    assert (found.value, found.mean, found.std) == (92, 91, 1)
    assert summarize(results, "miou") is None
    newer = summarize([*results, result(80, seed="1")], "acc1")
    assert newer is not None
    assert newer.value == 91  # a seed that was run again counts once
    memory = summarize([result(3, seed="", metric="memory_gb"), result(2, seed="", metric="memory_gb")], "memory_gb")
    assert memory is not None
    assert (memory.value, memory.std) == (2, None)


def test_a_run_is_found_from_each_row_that_it_serves(tmp_path: Path) -> None:
    letters = {"table": "7", "group": "Letters", "row": "WaveMix-Lite-112/16"}
    append_results(results_file(tmp_path, 7), [result(95.9, **letters), result(95.8, flags="--data.x=1", **letters)])
    ledger = Ledger(tmp_path)
    (row,) = find_rows(find_table(3), "EMNIST Letters")
    assert [entry.follows(row) for entry in ledger.of(row)] == [True, False]
    (other,) = find_rows(find_table(3), "EMNIST Digits")
    assert not ledger.of(other)


def test_benchmarks_serve_rows_with_the_same_options_only(tmp_path: Path) -> None:
    """Tables 2 and 6 ask for images/s of the same model; the largest batch is for another memory in each group."""
    place = {"table": "6", "group": "1024x2048, 80 GB A100", "row": "WaveMix-256/16 (4 level)"}
    measured = [result(7, metric=metric, recipe="benchmark", seed="", **place) for metric in ("fps", "largest_batch")]
    append_results(results_file(tmp_path, 6), measured)
    (row,) = find_rows(find_table(2), "WaveMix-256/16 (4 level)", "not pre-trained")
    assert [entry.metric for entry in Ledger(tmp_path).of(row)] == ["fps"]
