"""The notebooks: clean as committed, made of the package, and executed from top to bottom."""

from __future__ import annotations

import ast
import configparser
import importlib
import re
import resource
import sys
from importlib.metadata import files
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.test_structure import ROOT, requirements

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EVERY = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)

MAGIC = "%matplotlib inline"  # the only line that is not Python
LINES = 5  # of a function; what is longer belongs in the package
PATHS = re.compile(r"(?<![\w.])/(home|tmp|root|work|mnt|opt|usr|var|Users)/|[A-Z]:\\")
MODULES = re.compile(r"`((?:wavemix_pl|experiments|docs|notebooks)/[\w./-]+)`")
SECONDS = 120  # of one processor: so it is under two minutes on two cores, however busy they were
NO_NETWORK = """
import socket

def refuse(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise OSError(f"a notebook asks for {address}")
    return connect(self, address)

connect, socket.socket.connect = socket.socket.connect, refuse
"""


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def code(path: Path) -> ast.Module:
    """All code cells; a line that is not Python is a SyntaxError."""
    sources = [cell.source for cell in read(path).cells if cell.cell_type == "code"]
    return ast.parse("\n".join(line for source in sources for line in source.splitlines() if line != MAGIC), str(path))


def imported(tree: ast.Module) -> list[tuple[str, str | None]]:
    """(module, name within it or None)."""
    found: list[tuple[str, str | None]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [(node.module or "", alias.name) for alias in node.names]
    return found


def test_numbers() -> None:
    """They are read in their order, and each says in its title which it is."""
    assert [path.stem[:3] for path in NOTEBOOKS] == [f"{number:02}_" for number in range(1, len(NOTEBOOKS) + 1)]
    assert NOTEBOOKS
    for path in NOTEBOOKS:
        first, *_, last = read(path).cells
        assert first.source.startswith(f"# {path.stem[:2]} "), path.name
        assert "## What to try next" in last.source, path.name


@EVERY
def test_committed_without_traces(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
        assert cell.metadata == {}
    assert not PATHS.search(path.read_text())


@EVERY
def test_imports_exist_and_are_declared(path: Path) -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = config["options"]["install_requires"] + "\n" + config["options.extras_require"]["notebooks"]
    declared = {*requirements(listed), "ipython"}  # ipykernel brings IPython
    # not packages_distributions(), which Python 3.10 knows by halves
    declared_modules = {file.parts[0].removesuffix(".py") for name in declared for file in files(name) or []}
    for module, name in imported(code(path)):
        top = module.partition(".")[0]
        assert top in {*sys.stdlib_module_names, *declared_modules, "wavemix_pl"}, module
        if top == "wavemix_pl":
            assert name is None or hasattr(importlib.import_module(module), name), f"{module}.{name}"


@EVERY
def test_defines_nothing_of_weight(path: Path) -> None:
    for node in ast.walk(code(path)):
        assert not isinstance(node, (ast.ClassDef, ast.AsyncFunctionDef))
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < LINES, node.name


@EVERY
def test_files_that_it_names_exist(path: Path) -> None:
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            for name in MODULES.findall(cell.source):
                assert (ROOT / name).exists(), name


def execute(path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a notebook in an empty directory, and asks for no more than it says."""
    (folder / "hooks").mkdir()
    (folder / "hooks" / "sitecustomize.py").write_text(NO_NETWORK)
    (folder / "here").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder / "hooks"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # two threads wait for each other on busy cores, which counts as work
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    notebook = read(path)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder / "here")}}
    )
    client.execute()  # raises where a cell does
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < SECONDS
    assert list((folder / "here").iterdir()) == []


def test_a_short_one_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    execute(ROOT / "notebooks" / "02_wavelets.ipynb", tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.stem != "02_wavelets"], ids=lambda path: path.stem)
def test_every_one_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    execute(path, tmp_path, monkeypatch)
