"""All tables of the paper, and the way from names to rows."""

from __future__ import annotations

import difflib
from functools import cache
from pathlib import Path

from wavemix_pl.errors import InputError
from wavemix_pl.paper.rows import Row, Table, name_of
from wavemix_pl.paper.table_file import load_data, load_table

_MARKS = "*†‡ "


def experiments_folder(start: Path | None = None) -> Path:
    """The folder `experiments` of a checkout: below the current directory, or beside the package.

    Raises:
        InputError: There is none: the package was installed without its repository.
    """
    places = (start or Path.cwd(), Path(__file__).parents[2])
    for place in places:
        if (place / "experiments" / "tables").is_dir():
            return place / "experiments"
    raise InputError("the tables lie in the repository, not in the package: run this in a clone of it")


@cache
def load_tables() -> dict[str, Table]:
    """All tables as the command line names them: the paper's by number, its sections with numbers, our own by name.

    Raises:
        InputError: A file that cannot be read, or says what no row has; it is named.
    """
    folder = experiments_folder() / "tables"
    data = load_data(folder / "data.yaml")
    files = sorted(set(folder.glob("*.yaml")) - {folder / "data.yaml"}, key=_order)
    return {str(table.table): table for table in (load_table(path, data) for path in files)}


def _order(path: Path) -> tuple[bool, bool, str]:
    """The paper's tables come first, then its sections."""
    return not path.stem.startswith("table"), not path.stem.startswith("section"), path.stem


def find_table(name: str | int) -> Table:
    """The table of a number.

    Raises:
        InputError: No such table.
    """
    tables = load_tables()
    if str(name) not in tables:
        raise InputError(f"there is no table {name!r}; known are {', '.join(tables)}")
    return tables[str(name)]


def rows_like(row: Row) -> list[Row]:
    """The row, and all others of any table that one run serves as well."""
    return [row, *(other for other in _by_experiment().get(row.experiment, []) if other != row)]


@cache
def _by_experiment() -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in (row for table in load_tables().values() for row in table.rows if row.model):
        found.setdefault(row.experiment, []).append(row)
    return found


def find_rows(table: Table, label: str | None = None, group: str | None = None) -> list[Row]:
    """The rows of a table that have a label and stand in a group, both as printed but for marks and case.

    Raises:
        InputError: None has; the nearest is suggested.
    """
    rows = table.rows
    for given, kind in ((group, "group"), (label, "row")):
        if given is None:
            continue
        found = [row for row in rows if _plain(getattr(row, kind) or "") == _plain(given)]
        if not found:
            known = {_plain(name): name for name in (getattr(row, kind) for row in rows) if name}
            near = difflib.get_close_matches(_plain(given), known, n=1, cutoff=0.4)
            hint = f", did you mean {known[near[0]]!r}?" if near else f"; there are {', '.join(known.values())}"
            raise InputError(f"{name_of(table.table)} has no {kind} {given!r}{hint}")
        rows = found
    return rows


def _plain(label: str) -> str:
    return label.casefold().rstrip(_MARKS).replace(" ", "")
