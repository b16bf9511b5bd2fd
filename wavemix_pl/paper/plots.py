"""Accuracy against parameters and against throughput, for the report."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wavemix_pl.paper.comparison import Compared
from wavemix_pl.paper.rows import Table, name_of
from wavemix_pl.pictures import inline_svg, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INK = "#3c4043"  # of all that is no point; on a page, the color of its text
_LETTERS = 8  # size of names, in points
_KINDS = {"WaveMix": "#1f77b4", "others": "#d9772b"}
# table, column across, its name, scale
_PLOTS = (
    (4, "params", "parameters, millions", 1e-6),
    (10, "params", "parameters, millions", 1e-6),
    (10, "test_images_per_s", "inference, images/s", 1.0),
    (11, "params", "parameters, millions", 1e-6),
    ("fashion-frontier", "params", "parameters", 1.0),
)


@dataclass(frozen=True)
class Plot:
    """A plot of a table, or of one of its groups.

    Attributes:
        table: Number of the table.
        group: Of its rows, such as a data set; None where the table has none.
        across: The column across.
        caption: The table's name, the group and the title.
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
            caption = f"{name_of(number)}{f', {group}' if group else ''}: {table.title}"
            figure = _draw([entry for entry in compared if entry.row.group == group], across, label, scale)
            yield Plot(number, group, across, caption, figure)


def tradeoffs(everything: Iterable[tuple[Table, Sequence[Compared]]]) -> Iterator[tuple[int | str, str, str]]:
    """The plots for a page, light or dark, as (table, caption, SVG)."""
    for plot in plots(everything):
        svg = inline_svg(plot.figure).replace(_INK, "currentColor")
        yield plot.table, plot.caption, re.sub(r' id="[a-zA-Z.0-9]+_\d+"', "", svg)  # numbers begin anew in each plot


def _draw(compared: Sequence[Compared], across: str, label: str, scale: float) -> Figure:
    axes: Any
    figure = new_figure(8, 4.7)
    axes = figure.subplots()
    places: dict[tuple[float, float], str] = {}
    for entry in compared:
        color = _KINDS["WaveMix" if entry.row.row.casefold().startswith("wavemix") else "others"]
        paper, x, y = entry.row.paper, entry.ours(across), entry.ours("acc1")
        if across in paper and "acc1" in paper:
            place = (scale * paper[across], paper["acc1"])
            axes.plot(*place, "o", color=color, fillstyle="none")
            places[place] = entry.row.row
        if x is not None and y is not None:
            axes.plot(scale * x, y, "o", color=color)
            of_seeds = [result.value for result in entry.measured["acc1"].results]
            axes.vlines(scale * x, min(of_seeds), max(of_seeds), color=color, linewidth=1)
            if not paper:
                places[scale * x, y] = entry.row.row
    axes.set(xscale="log", xlabel=label, ylabel="top-1, %")
    _style(axes)
    _name(axes, places)
    return figure


def _style(axes: Any) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(colors=_INK, which="both")
    for part in (axes.xaxis.label, axes.yaxis.label):
        part.set_color(_INK)
    for spine in axes.spines.values():
        spine.set_color(_INK)
    for kind, color in _KINDS.items():
        axes.plot([], [], "s", color=color, label=kind)
    axes.plot([], [], "o", color=_INK, fillstyle="none", label="the paper's number")
    axes.plot([], [], "o", color=_INK, label="ours, best seed, and how far others lie below")
    axes.legend(labelcolor=_INK, frameon=False, fontsize=8, ncols=4, loc="lower left", bbox_to_anchor=(0, 1))


def _name(axes: Any, places: Mapping[tuple[float, float], str]) -> None:
    """Writes names beside their points, where they cover no point, name or frame; far ones with a line."""
    box = axes.get_window_extent()
    per_point = axes.figure.dpi / 72
    points = {place: axes.transData.transform(place) / per_point for place in places}
    left, right, bottom, top = (side / per_point for side in (box.x0, box.x1, box.y0, box.y1))
    taken = [(x - 5, x + 5, y - 5, y + 5) for x, y in points.values()]
    for place, (x, y) in sorted(points.items(), key=lambda item: -item[1][1]):
        length = 0.58 * _LETTERS * len(places[place])
        choices = []
        for side, start in (("left", x + 7), ("right", x - 7 - length)):
            for rise in (2, -8, 12, -18, 22, -28, 32, -38):
                area = (start, start + length, y + rise - 1, y + rise + _LETTERS + 1)
                beyond = max(0.0, left - area[0], area[1] - right) + max(0.0, bottom - area[2], area[3] - top)
                cost = _LETTERS * beyond + sum(_shared(area, other) for other in taken)
                choices.append((cost, abs(rise), side, rise, area))
        _, _, side, rise, area = min(choices)
        taken.append(area)
        text = {"xytext": (7 if side == "left" else -7, rise), "textcoords": "offset points", "ha": side}
        line = {"arrowstyle": "-", "color": _INK, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}
        far = {"arrowprops": line | {"relpos": (float(side == "right"), 0.5)}} if abs(rise) > _LETTERS else {}
        axes.annotate(places[place], place, annotation_clip=False, fontsize=_LETTERS, color=_INK, **text, **far)


def _shared(one: Sequence[float], other: Sequence[float]) -> float:
    """The area that two rectangles (left, right, bottom, top) share."""
    width, height = min(one[1], other[1]) - max(one[0], other[0]), min(one[3], other[3]) - max(one[2], other[2])
    return max(width, 0.0) * max(height, 0.0)
