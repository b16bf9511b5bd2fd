"""A row of one of the paper's tables, or of one of this project's own, as data."""

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
        table: Number of the table; of what the text tells without a table, the section, such as "4.6"; of one of this
            project's own tables, its name.
        columns: Metrics of the table.
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
    columns: tuple[str, ...]
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
class Claim:
    """Something that the paper says of two rows, or that two rows can test.

    Attributes:
        text: In our words.
        source: Where the paper says it.
        higher: Row of which the metric should be the higher.
        lower: Row of which it should be the lower.
        metric: Column by which they are compared.
    """

    text: str
    source: str
    higher: str
    lower: str
    metric: str


@dataclass(frozen=True)
class Table:
    """One of the paper's tables, or one of this project's own measurements.

    Attributes:
        table: Its number, the section of numbers that stand in no table, or the name of one that is not the paper's.
        title: In our words.
        columns: Metric -> heading.
        rows: In the paper's order.
        reference: Row from which the changes in the columns `*_change` are counted, or None.
        claims: What its rows can test.
    """

    table: int | str
    title: str
    columns: dict[str, str]
    rows: list[Row]
    reference: str | None = None
    claims: tuple[Claim, ...] = ()

    @property
    def printed(self) -> bool:
        """Whether the paper prints any number of it."""
        return any(row.paper for row in self.rows)


def name_of(table: int | str) -> str:
    """What the paper calls it; tables that are not the paper's have names.

    >>> name_of(5), name_of("4.6"), name_of("fashion-claims")
    ('Table 5', 'Section 4.6', 'fashion-claims')
    """
    return f"Table {table}" if isinstance(table, int) else f"Section {table}" if table[:1].isdigit() else table


def stem_of(table: int | str) -> str:
    """The name of its files.

    >>> stem_of(5), stem_of("4.6"), stem_of("fashion-claims")
    ('table05', 'section-4.6', 'fashion-claims')
    """
    return f"table{table:02}" if isinstance(table, int) else f"section-{table}" if table[:1].isdigit() else table
