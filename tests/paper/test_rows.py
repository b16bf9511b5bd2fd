"""The tables as data: complete, consistent with the data modules, and lines that make no sense are refused."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from wavemix_pl import data
from wavemix_pl.config import WaveMixConfig
from wavemix_pl.errors import InputError
from wavemix_pl.paper import catalog, rows
from wavemix_pl.paper.catalog import find_rows, find_table, load_tables, rows_like
from wavemix_pl.paper.rows import Row
from wavemix_pl.paper.table_file import load_data, load_table

TABLES = load_tables()
ROWS = [row for table in TABLES.values() for row in table.rows]
FOLDER = catalog.experiments_folder()

# lines as the paper prints them; some of ours are one of them for each data set or stem
PRINTED = {1: 4, 2: 7, 3: 10, 4: 10, 5: 4, 6: 39, 7: 16, 8: 7, 9: 8, 10: 15, 11: 18, 12: 3, 13: 12, 14: 4}


def test_every_row_is_there() -> None:
    lines = {number: len(dict.fromkeys(r.row for r in TABLES[str(number)].rows)) for number in PRINTED}
    expected = dict(PRINTED)
    expected[2] -= 1  # WaveMix-256/16 stands there twice
    expected[6] -= 4  # four models at two sizes of images
    expected[7] -= 6  # WaveMix-192/16 is tried on five data sets, two models of EMNIST on two
    assert lines == expected
    assert len(TABLES["11"].rows) == 18 * 3 - 3 - 2  # no TinyImageNet for three lines, nothing else for one
    assert len(TABLES["12"].rows) == 3 * 2
    assert len(TABLES["6"].rows) == 39
    assert len(TABLES["7"].rows) == 16


def test_some_numbers_as_printed() -> None:
    def paper(table: int | str, label: str, group: str | None = None) -> dict[str, float]:
        return find_rows(find_table(table), label, group)[0].paper

    assert paper(1, "Cityscapes val.")["previous_params"] == 85e6
    assert paper(3, "iNAT-mini (val set)") == {"acc1": 61.75}
    assert paper(5, "WaveMix-Lite-8/5") == {"acc1": 90, "params": 7156}
    assert paper(6, "WaveMix-256/17 (level 4)") == {"miou": 77.68, "params": 67.1e6, "largest_batch": 1, "fps": 6}
    assert paper(10, "ViT-B-32")["test_images_per_s"] == 1613
    assert paper(11, "WaveMix-Lite-16/7", "TinyImgNet") == {"acc1": 19.15, "params": 40000, "memory_gb": 0.1}
    assert paper(12, "WaveMix-Lite-224/20", "Patchifying Layer") == {"acc1": 67.91}
    assert paper(14, "4") == {"acc1": 65.40, "params": 47.7e6, "memory_gb": 13.2}


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_row_is_whole(row: Row) -> None:
    table = TABLES[str(row.table)]
    assert row.paper.keys() <= table.columns.keys()
    assert (row.model is None) != (row.reported is None)
    if row.model is None:
        return
    assert row.data is not None
    assert row.image_size is not None
    assert row.recipe
    assert all((FOLDER / "recipes" / f"{name}.yaml").is_file() for name in row.recipe)
    assert row.benchmark.keys() <= table.columns.keys()
    if row.model.casefold().startswith("wavemix"):
        WaveMixConfig.from_notation(row.model, in_channels=row.data.channels, **row.overrides)
    assert row in rows_like(row)


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: str(table.table))
def test_rows_of_a_table_have_different_names(table: rows.Table) -> None:
    names = [(row.group, row.row) for row in table.rows]
    assert len(set(names)) == len(names)
    assert table.reference is None or any(row.row == table.reference for row in table.rows)


@pytest.mark.parametrize("entry", {row.data.name: row.data for row in ROWS if row.data}.values(), ids=lambda d: d.name)
def test_data_sets_are_what_their_modules_say(entry: rows.Data) -> None:
    kind = getattr(data, entry.kind)
    classes = kind.about.classes if kind.about and not entry.options else kind(**entry.options).num_classes
    sizes = (inspect.signature(base.__init__).parameters.get("image_size") for base in kind.mro())
    stated = next((size.default for size in sizes if size and size.default), None)
    assert classes == entry.classes
    assert kind.in_channels == entry.channels
    assert (stated or kind.image_size) == entry.image_size


def test_one_run_serves_rows_of_several_tables() -> None:
    letters = find_rows(find_table(7), "WaveMix-Lite-112/16", "Letters")[0]
    assert {row.table for row in rows_like(letters)} == {1, 3, 7}
    (galaxies,) = find_rows(find_table(8), "WaveMix-192/16 (3 level)")
    assert {row.table for row in rows_like(galaxies)} == {1, 3, 7, 8}


def test_labels_are_found_without_marks_and_case() -> None:
    assert find_rows(find_table("5"), "wavemix-lite-8/10*")[0].group == "MNIST"
    assert len(find_rows(find_table(7), "WaveMix-192/16 (level 3)*")) == 5


@pytest.mark.parametrize(
    ("table", "label", "group", "message"),
    [
        ("15", None, None, "no table '15'; known are 1, 2"),
        ("5", "WaveMix-Lite-8/6", None, "Table 5 has no row 'WaveMix-Lite-8/6', did you mean 'WaveMix-Lite-8/5'"),
        ("11", None, "CIFAR10", "no group 'CIFAR10', did you mean 'CIFAR-10'"),
        ("4.6", "zzz", None, "Section 4.6 has no row 'zzz'; there are 2D-DWT, "),
    ],
)
def test_unknown_names(table: str, label: str | None, group: str | None, message: str) -> None:
    with pytest.raises(InputError) as error:
        find_rows(find_table(table), label, group)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{row: A, paper: {}, modle: resnet18}", "unknown key 'modle'"),
        ("{row: A, paper: {}}", "row 'A' needs either a model or 'reported'"),
        ("{row: A, model: resnet18, data: CIFAR10, paper: {}}", "unknown data 'CIFAR10'; known are MNIST"),
        ("{row: A, model: resnet18, paper: {}", "cannot be read"),
    ],
)
def test_bad_lines(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "table01.yaml"
    path.write_text(f"title: T\ncolumns: {{}}\nrows:\n  - {line}\n")
    with pytest.raises(InputError, match=r"table01\.yaml") as error:
        load_table(path, load_data(FOLDER / "tables" / "data.yaml"))
    assert message in str(error.value)


def test_without_a_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "__file__", str(tmp_path / "site-packages" / "wavemix_pl" / "paper" / "catalog.py"))
    with pytest.raises(InputError, match="run this in a clone"):
        catalog.experiments_folder(tmp_path)
