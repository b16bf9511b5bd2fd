"""Accuracy against parameters and against throughput, for the report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wavemix_pl.paper.comparison import Compared
from wavemix_pl.paper.rows import Table, name_of
from wavemix_pl.pictures import inline_svg, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GREY = "#888888"  # readable on light and on dark
_KINDS = {"WaveMix": "#1f77b4", "others": "#d9772b"}
# table, column across, its name, scale
_PLOTS = (
    (4, "params", "parameters, millions", 1e-6),
    (10, "params", "parameters, millions", 1e-6),
    (10, "test_images_per_s", "inference, images/s", 1.0),
    (11, "params", "parameters, millions", 1e-6),
)


@dataclass(frozen=True)
class Plot:
    """A plot of a table, or of one of its groups.

    Attributes:
        table: Number of the table.
        group: Of its rows, such as a data set; None where the table has none.
        across: The column across.
        caption: In a sentence or two.
        figure: Top-1 accuracy against that column.
    """

    table: int | str
    group: str | None
    across: str
    caption: str
    figure: Figure


def plots(everything: Iterable[tuple[Table, Sequence[Compared]]]) -> Iterator[Plot]:
    """Accuracy against parameters and against throughput; of tables that are there.

    Raises:
        InputError: matplotlib is not installed.
    """
    tables = {table.table: (table, compared) for table, compared in everything}
    for number, across, label, scale in _PLOTS:
        if number not in tables:
            continue
        table, compared = tables[number]
        for group in dict.fromkeys(entry.row.group for entry in compared):
            caption = f"{name_of(number)}{f', {group}' if group else ''}: {table.title}. "
            caption += "Circles: the paper's numbers; filled: ours."
            figure = _draw([entry for entry in compared if entry.row.group == group], across, label, scale)
            yield Plot(number, group, across, caption, figure)


def tradeoffs(everything: Iterable[tuple[Table, Sequence[Compared]]]) -> Iterator[tuple[str, str]]:
    """The plots for a page, as (caption, SVG)."""
    for plot in plots(everything):
        yield plot.caption, inline_svg(plot.figure)


def _draw(compared: Sequence[Compared], across: str, label: str, scale: float) -> Figure:
    axes: Any
    figure = new_figure(8, 4.5)
    axes = figure.subplots()
    for entry in compared:
        color = _KINDS["WaveMix" if entry.row.row.casefold().startswith("wavemix") else "others"]
        paper, x, y = entry.row.paper, entry.ours(across), entry.ours("acc1")
        if across in paper and "acc1" in paper:
            place = (scale * paper[across], paper["acc1"])
            axes.plot(*place, "o", color=color, fillstyle="none")
            axes.annotate(entry.row.row, place, xytext=(5, 3), textcoords="offset points", fontsize=7, color=_GREY)
        if x is not None and y is not None:
            axes.plot(scale * x, y, "o", color=color)
    axes.set(xscale="log", xlabel=label, ylabel="top-1, %")
    axes.tick_params(colors=_GREY, which="both")
    for part in (axes.xaxis.label, axes.yaxis.label):
        part.set_color(_GREY)
    for spine in axes.spines.values():
        spine.set_color(_GREY)
    for kind, color in _KINDS.items():
        axes.plot([], [], "o", color=color, label=kind)
    axes.legend(labelcolor=_GREY, framealpha=0, edgecolor=_GREY, fontsize=8)
    return figure
