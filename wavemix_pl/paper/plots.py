"""Accuracy against parameters and against throughput, for the report."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from typing import Any

from wavemix_pl.errors import InputError
from wavemix_pl.paper.rows import Table, name_of
from wavemix_pl.paper.tables import Compared

_GREY = "#888888"  # readable on light and on dark
_KINDS = {"WaveMix": "#1f77b4", "others": "#d9772b"}
# table, column across, its name, scale
_PLOTS = (
    (4, "params", "parameters, millions", 1e-6),
    (10, "params", "parameters, millions", 1e-6),
    (10, "test_images_per_s", "inference, images/s", 1.0),
    (11, "params", "parameters, millions", 1e-6),
)


def tradeoffs(everything: Sequence[tuple[Table, Sequence[Compared]]]) -> Iterator[tuple[str, str]]:
    """Pictures with their captions, as (caption, SVG); of tables that are there.

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
            yield caption, _draw([entry for entry in compared if entry.row.group == group], across, label, scale)


def _draw(compared: Sequence[Compared], across: str, label: str, scale: float) -> str:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("the report's plots need matplotlib: pip install 'wavemix_pl[plots]'") from None
    axes: Any
    figure = Figure(figsize=(8, 4.5), layout="constrained")
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
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return re.sub(r"^.*?(?=<svg)", "", text.getvalue(), flags=re.DOTALL)
