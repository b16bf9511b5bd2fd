"""The report: one page and one file, in which each of our numbers leads to the run that gave it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.paper.test_results import result
from wavemix_pl.errors import InputError
from wavemix_pl.paper.catalog import experiments_folder, load_tables
from wavemix_pl.paper.report import update_readme
from wavemix_pl.paper.results import append_results, results_file

Run = Callable[..., int]
CIFAR = {"table": "11", "group": "CIFAR-10", "row": "WaveMix-Lite-64/7"}


class Page(HTMLParser):
    """What a browser would see: balanced tags, targets and links, and nothing that must be fetched."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.counts: dict[str, int] = {}
        self.fetched: list[str] = []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.ids |= {values["id"]} if values.get("id") else set()  # type: ignore[arg-type]
        if tag == "a":
            self.links.append(str(values["href"]))
        self.fetched += [str(values[name]) for name in ("src", "srcset", "data") if values.get(name)]
        if tag in ("link", "script", "img", "iframe"):
            self.fetched.append(tag)
        if tag not in ("meta", "br", "hr"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("meta", "br", "hr"):
            assert self.open.pop() == tag


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(experiments_folder(), tmp_path / "experiments", ignore=shutil.ignore_patterns("results"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "experiments"


def test_report(run: Run, copy: Path) -> None:
    append_results(results_file(copy, 11), [result(value, seed=str(i), **CIFAR) for i, value in enumerate((87, 88))])
    readme = Path("README.md")
    begin, end = "<!-- results: begin, written by 'wavemix-pl report --readme' -->", "<!-- results: end -->"
    readme.write_text(f"Before <this>\n{begin}\nold\n{end}\nAfter\n")
    assert run("report", "--readme", readme) == 0
    text = Path("runs/report/tables.html").read_text()
    page = Page(text)
    assert not page.fetched
    assert page.counts["svg"] == 4 + len({row.group for row in load_tables()["11"].rows})
    tables = load_tables().values()
    assert page.counts["table"] == len(tables) + sum(bool(table.claims) for table in tables) + 1
    assert {link for link in page.links if re.fullmatch(r"#r\d+", link)} == {"#r2"}  # the best of both
    assert {"r1", "r2"} <= page.ids
    assert "88.00 (87.50 ± 0.71, 2 seeds)" in text
    assert "0123456789ab" in text
    assert text.count('class="number missing">-</td>') > 100

    markdown = Path("runs/report/tables.md").read_text()
    assert [int(n) for n in re.findall(r"^### Table (\d+)\.", markdown, re.MULTILINE)] == list(range(1, 15))
    assert "### Section 4.6." in markdown

    content = readme.read_text()
    assert content.startswith("Before <this>\n")
    assert content.endswith("<!-- results: end -->\nAfter\n")
    assert "old" not in content
    assert "WaveMix-Lite-64/7, CIFAR-10: acc1 | 87.81 | 88.00 (87.50 ± 0.71, 2 seeds)" in content
    assert "[1](experiments/results/table11.csv#L3)" in content


def test_without_results(run: Run, copy: Path) -> None:
    assert run("report", "--output", "there") == 0
    assert "None is recorded yet." in Path("there/tables.html").read_text()


def test_a_file_without_the_marks_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("mine")
    with pytest.raises(InputError, match=r"README\.md needs the lines"):
        update_readme(path, "text")
    assert path.read_text() == "mine"
