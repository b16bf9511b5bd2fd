"""A row of one of the paper's tables, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from wavemix_pl.config import WaveMixConfig

Task = Literal["classification", "segmentation"]


@dataclass(frozen=True)
class Data:
    """A data set as the tables name it.

    Attributes:
        name: In the tables.
        kind: Name of the data module.
        options: Of the data module.
        classes: K.
        channels: Of its images.
        image_size: (rows, columns) that the data module gives its images by default.
    """

    name: str
    kind: str
    options: dict[str, Any]
    classes: int
    channels: int
    image_size: tuple[int, int]


@dataclass(frozen=True)
class Row:
    """A row of one of the paper's tables.

    Attributes:
        table: Number of the table; of what the text tells without a table, the section, such as "4.6".
        row: The paper's label, without its footnote mark.
        group: The table's part in which it stands, where a table has parts.
        paper: Metric -> the number that the paper prints: percent, parameters, GB, images/s, seconds.
        tolerance: Parameters by which a count may differ from the printed one: by default one unit of the last digit.
        source: Where numbers of others beside it come from.
        reported: Where the row comes from, or why it cannot be built, where it is no model that can be built here.
        star: What the footnote mark means, on a marked row.
        note: What else one must know; why a number cannot be met.
        model: Name for `build_model`, or None.
        overrides: Its further fields or arguments.
        data: What it is trained and tested on, or None.
        options: Of the data module, beside those of `data`.
        image_size: (rows, columns) of the images that the model sees.
        task: Which head.
        recipe: Names of the configs in `experiments/recipes`, later ones win.
        backbone: Name of the published weights from which stem and blocks start, or None.
        benchmark: Metric -> options of `wavemix-pl benchmark` that measure it.
    """

    table: int | str
    row: str
    group: str | None
    paper: dict[str, float]
    tolerance: float
    source: str | None = None
    reported: str | None = None
    star: str | None = None
    note: str | None = None
    model: str | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    data: Data | None = None
    options: dict[str, Any] = field(default_factory=dict)
    image_size: tuple[int, int] | None = None
    task: Task = "classification"
    recipe: tuple[str, ...] = ()
    backbone: str | None = None
    benchmark: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def score(self) -> str:
        """The metric by which its models are compared."""
        return "acc1" if self.task == "classification" else "miou"

    @property
    def experiment(self) -> str:
        """What is trained, and how: the same text for rows that one run serves, whatever tables they stand in."""
        model = str(self.model)
        if model.casefold().startswith("wavemix"):
            model = WaveMixConfig.from_notation(model).notation
        data = self.data and self.data.name
        settings = (sorted(self.overrides.items()), data, sorted(self.options.items()), self.image_size)
        return str((model, *settings, self.recipe, self.backbone))

    def __str__(self) -> str:
        return f"{name_of(self.table)}, {self.group + ': ' if self.group else ''}{self.row}"


@dataclass(frozen=True)
class Table:
    """One of the paper's tables.

    Attributes:
        table: Its number, or the section of numbers that stand in no table.
        title: In our words.
        columns: Metric -> heading.
        rows: In the paper's order.
        reference: Row from which the changes in the columns `*_change` are counted, or None.
    """

    table: int | str
    title: str
    columns: dict[str, str]
    rows: list[Row]
    reference: str | None = None


def name_of(table: int | str) -> str:
    """What the paper calls it.

    >>> name_of(5), name_of("4.6")
    ('Table 5', 'Section 4.6')
    """
    return f"Table {table}" if isinstance(table, int) else f"Section {table}"
