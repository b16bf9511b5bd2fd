"""Verdicts on the paper's claims, and tables that are not the paper's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from wavemix_pl.errors import InputError
from wavemix_pl.paper import catalog
from wavemix_pl.paper.catalog import find_rows, find_table, load_tables
from wavemix_pl.paper.claims import judge
from wavemix_pl.paper.comparison import compare
from wavemix_pl.paper.results import Ledger, Result, append_results
from wavemix_pl.paper.table_file import load_data, load_table

Run = Callable[..., int]

LINES = """title: T
columns: {acc1: accuracy, params: parameters}
defaults: {data: Fashion-MNIST, recipe: [classification]}
rows:
  - {row: one, model: WaveMix-Lite-8/1}
  - {row: two, model: WaveMix-Lite-8/2}
"""
DATA = load_data(catalog.experiments_folder() / "tables" / "data.yaml")


def result(row: str, seed: int, value: float) -> Result:
    return Result(
        *("ours", "", row, "acc1", value, "classification", "", str(seed), "1", 1.0),
        *("cpu", "32-true", "8", "2026-01-01", "abc", "torch", "hash", "-"),
    )


@pytest.mark.parametrize(
    ("one", "two", "verdict", "difference"),
    [
        ([91, 92, 93], [88, 90, 89], "holds", 3),
        ([88, 90, 89], [91, 92, 93], "does not hold", -3),
        ([91, 92, 93], [90, 91, 90], "cannot be told", 5 / 3),  # one run each is the same
        ([91, 92], [80, 81, 82], "not measured", None),
        ([], [], "not measured", None),
    ],
)
def test_verdicts(tmp_path: Path, one: list[float], two: list[float], verdict: str, difference: float | None) -> None:
    (tmp_path / "ours.yaml").write_text(f"{LINES}claims:\n  - {{text: C, source: S, higher: one, lower: two}}\n")
    table = load_table(tmp_path / "ours.yaml", DATA)
    runs = [result("one", *run) for run in enumerate(one)] + [result("two", *run) for run in enumerate(two)]
    append_results(tmp_path / "results" / "ours.csv", runs)
    (judged,) = judge(table, compare(table, Ledger(tmp_path)))
    assert judged.verdict == verdict
    assert judged.difference == (None if difference is None else pytest.approx(difference))


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ("{text: C, source: S, higher: one, lower: three}", "the row 'three', of which there are 0"),
        ("{text: C, source: S, higher: one, lower: two, metric: miou}", "speaks of 'miou'; columns are acc1, params"),
        ("{text: C, source: S, higher: one, lower: two, better: one}", "unknown key 'better'"),
    ],
)
def test_bad_claims(tmp_path: Path, claim: str, message: str) -> None:
    (tmp_path / "ours.yaml").write_text(f"{LINES}claims:\n  - {claim}\n")
    with pytest.raises(InputError, match=message):
        load_table(tmp_path / "ours.yaml", DATA)


def test_a_table_of_ours_has_one_column_for_each_metric(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("tables", "fashion-claims", "--markdown") == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("### fashion-claims. ")
    assert printed[2].startswith("| group | row | top-1, % |")
    assert any(line.startswith("| Haar beats db2 | Table 13 | ") for line in printed)


def test_claims_compare_rows_that_differ_in_what_is_claimed() -> None:
    """One field of the model, the image size or the recipe; levels differ in the model's name."""
    table = find_table("fashion-claims")
    for claim in table.claims:
        one, two = (find_rows(table, label)[0] for label in (claim.higher, claim.lower))
        assert one.data == two.data
        stem = {"stem", "stride", "patch_size"}  # the two stems have an option each
        differing = {k for k in {**one.overrides, **two.overrides} if one.overrides.get(k) != two.overrides.get(k)}
        others = [one.image_size != two.image_size, one.recipe != two.recipe, one.model != two.model]
        assert bool(differing - {"stride", "patch_size"}) + sum(others) <= 1 or claim.source == "Table 14", claim
        assert differing <= stem or len(differing) == 1, claim


def test_own_tables_come_after_the_papers() -> None:
    names = list(load_tables())
    assert names[:14] == [str(number) for number in range(1, 15)]
    assert names.index("fashion-claims") > names.index("4.6")
