"""The verb `tables`: what it prints, what it counts, and what it says of results."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.paper.test_results import result
from wavemix_pl import create_model
from wavemix_pl.paper.catalog import experiments_folder, find_table, load_tables
from wavemix_pl.paper.comparison import Compared, compare
from wavemix_pl.paper.results import Ledger, append_results, results_file
from wavemix_pl.paper.tables import remarks, shown

Run = Callable[..., int]


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with `experiments` of its own, without results."""
    shutil.copytree(experiments_folder(), tmp_path / "experiments", ignore=shutil.ignore_patterns("results"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "experiments"


def entries(run: Run, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert run("tables", *arguments, "--json") == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> list[Compared]:
    ledger = Ledger(tmp_path_factory.mktemp("nothing"))
    return [entry for table in load_tables().values() for entry in compare(table, ledger)]


def test_every_model_is_counted_and_agrees(everything: list[Compared]) -> None:
    assert not [entry.problem for entry in everything if entry.problem]
    assert all((entry.params is None) == (entry.row.model is None) for entry in everything)
    assert not [str(entry.row) for entry in everything if entry.agrees is False]
    assert sum(entry.agrees is True for entry in everything) > 100


def test_counts_are_those_of_whole_models(everything: list[Compared]) -> None:
    rows = [
        entry for entry in everything if entry.row.model and entry.row.model.startswith("WaveMix-") and entry.row.data
    ]
    for entry in rows[::7]:
        row = entry.row
        assert row.model is not None
        assert row.data is not None
        with torch.device("meta"):
            model = create_model(row.model, row.data.classes, row.task, in_channels=row.data.channels, **row.overrides)
        assert sum(parameter.numel() for parameter in model.parameters()) == entry.params


def test_what_is_far_from_the_paper_says_why(everything: list[Compared]) -> None:
    for entry in everything:
        printed = entry.row.paper.get("params")
        single_digit = printed in range(1_000_000, 10_000_000, 1_000_000)
        if entry.params and printed and not single_digit and abs(entry.params - printed) > 0.02 * printed:
            assert entry.row.note or printed < 1e6, f"{entry.row}: {entry.params} and {printed}"


def test_tolerances_are_no_wider_than_they_must(everything: list[Compared]) -> None:
    """A stated tolerance is hardly wider than the difference that it excuses."""
    for entry in everything:
        printed = entry.row.paper.get("params")
        if entry.row.note is None or entry.params is None or not printed or entry.row.tolerance <= 0.1e6:
            continue
        alike = [abs(e.params - printed) for e in everything if e.params and e.row.row == entry.row.row]
        assert entry.row.tolerance <= 1.1 * max(alike) + 0.003 * printed, entry.row


def test_json(run: Run, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = entries(run, capsys, "5")
    assert [(entry["row"], entry["group"]) for entry in found] == [
        ("WaveMix-Lite-8/10", "MNIST"),
        ("WaveMix-Lite-8/5", "Fashion MNIST"),
        ("WaveMix-Lite-32/7", "CIFAR-10"),
        ("WaveMix-Lite-64/6", "CIFAR-10"),
    ]
    assert [entry["ours"]["params"] for entry in found] == [3566, 7156, 37058, 520106]
    assert [entry["paper"]["params"] for entry in found] == [3566, 7156, 37058, 520106]
    assert {entry["ours"]["acc1"] for entry in found} == {None}
    assert {entry["table"] for entry in found} == {5}
    assert found[0]["star"] == "bilinear upsampling instead of the transposed convolution"
    assert found[1]["star"] is None


def test_all_tables_are_the_numbered_ones(run: Run, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = entries(run, capsys)
    assert list(dict.fromkeys(entry["table"] for entry in found)) == list(range(1, 15))
    reported = [entry for entry in found if entry["model"] is None]
    assert all("params" not in entry["ours"] or entry["ours"]["params"] is None for entry in reported)
    assert all(entry["source"] for entry in reported)


def test_measured_numbers_stand_beside_the_papers(run: Run, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = [result(value, seed=str(seed)) for seed, value in enumerate((89.0, 90.5, 90.0))]
    append_results(results_file(copy, 5), [*results, result(95, flags="--trainer.max_epochs=900")])
    entry = entries(run, capsys, "5")[1]
    assert entry["ours"]["acc1"] == 90.5
    runs = entry["runs"]["acc1"]
    assert (round(runs["mean"], 3), round(runs["std"], 3), len(runs["results"])) == (89.833, 0.764, 3)
    assert runs["results"][0]["commit"] == "0123456789ab"
    assert entry["variants"]["classification --trainer.max_epochs=900"]["acc1"]["value"] == 95
    assert run("tables", "5") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "90.50 (89.83 ± 0.76, 3 seeds)" in printed
    assert "with classification --trainer.max_epochs=900: acc1 95.00" in printed
    assert run("tables", "5", "--markdown") == 0
    markdown = capsys.readouterr().out
    assert "### Table 5. " in markdown
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert "| 90.00 | 90.50 (89.83 ± 0.76, 3 seeds) | 7,156 | 7,156 |" in markdown


def test_changes_are_counted_from_the_reference(copy: Path) -> None:
    def of(row: str, metric: str, value: float) -> Any:
        kind = "benchmark" if metric == "memory_gb" else "classification"
        seed = "" if kind == "benchmark" else "0"
        place = {"table": "4.6", "group": "token mixer", "row": row}
        return result(value, metric=metric, recipe=kind, seed=seed, **place)

    measured = [of("2D-DWT", "acc1", 91), of("no 2D-DWT", "acc1", 87.5)]
    measured += [of("2D-DWT", "memory_gb", 2), of("no 2D-DWT", "memory_gb", 3)]
    append_results(results_file(copy, "4.6"), measured)
    reference, without, *_ = compare(find_table("4.6"), Ledger(copy))
    assert 'ours: memory_gb on A "CPU", 2 cores, 32-true, batches of 256' in remarks(without)
    assert (without.ours("acc1_change"), without.ours("memory_gb_change")) == (-3.5, 50)
    assert reference.ours("acc1_change") is None


def test_broken_lines_are_named(run: Run, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = results_file(copy, 5)
    append_results(file, [result(90)])
    file.write_text(file.read_text() + "nonsense\n")
    assert run("tables", "5", "--json") == 0
    printed = capsys.readouterr()
    assert "experiments/results/table05.csv:3: not read: 1 cells instead of 18" in printed.err
    assert json.loads(printed.out)[1]["ours"]["acc1"] == 90


def test_check(run: Run, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("tables", "9", "--check") == 0
    assert "8 parameter counts compared, 0 differ" in capsys.readouterr().err


def test_check_finds_what_differs(
    run: Run, copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (entry,) = (row for row in find_table(5).rows if row.row == "WaveMix-Lite-8/5")
    monkeypatch.setitem(entry.paper, "params", 7157.0)
    with pytest.raises(SystemExit) as ended:
        run("tables", "5", "--check")
    assert ended.value.code == 1
    assert "Table 5, Fashion MNIST: WaveMix-Lite-8/5: 7,156 parameters, the paper has 7,157" in capsys.readouterr().err


def test_without_timm(
    run: Run, copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the peers' counts are missing, and the way to them is told."""
    monkeypatch.setitem(sys.modules, "timm", None)  # importing it fails
    found = {entry["row"]: entry for entry in entries(run, capsys, "10")}
    assert found["ResNet-18"]["ours"]["params"] is None
    assert found["WaveMix-Lite-128/8"]["ours"]["params"] == 3_968_552
    assert run("tables", "10", "--check") == 0
    assert "not counted: " in (err := capsys.readouterr().err)
    assert "wavemix_pl[baselines]" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("0",), "there is no table '0'"), (("5", "--json", "--markdown"), "choose one of --json and --markdown")],
)
def test_bad_input(
    run: Run, copy: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert run("tables", *arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "metric", "text"),
    [
        (40000, "params", "0.04 M"),
        (37058, "params", "37,058"),
        (-5.0, "acc1_change", "-5"),
        (62.0, "memory_gb_change", "+62"),
        (0.1, "memory_gb", "0.1"),
        (1242, "train_images_per_s", "1,242"),
        (69.8, "acc1", "69.80"),
    ],
)
def test_numbers_for_people(value: float, metric: str, text: str) -> None:
    assert shown(value, metric) == text
