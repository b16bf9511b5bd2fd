"""The rows of a table, with our numbers beside the paper's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from wavemix_pl.config import WaveMixConfig
from wavemix_pl.errors import InputError
from wavemix_pl.models.baselines import build_model
from wavemix_pl.paper.results import Ledger, Result, Summary, summarize
from wavemix_pl.paper.rows import Row, Table, Task


@dataclass(frozen=True)
class Compared:
    """A row with our numbers.

    Attributes:
        row: The paper's.
        params: Counted now, or None for what cannot be built.
        measured: Metric -> what was measured under the row's own recipe.
        variants: Recipe and flags, in words -> metric -> what was measured with them.
        problem: Why the parameters could not be counted.
    """

    row: Row
    params: int | None
    measured: dict[str, Summary]
    variants: dict[str, dict[str, Summary]]
    problem: str | None = None

    @property
    def agrees(self) -> bool | None:
        """Whether the count lies within the row's tolerance; None where there is nothing to compare."""
        printed = self.row.paper.get("params")
        return None if self.params is None or printed is None else abs(self.params - printed) <= self.row.tolerance

    def ours(self, metric: str) -> float | None:
        """Our number, in the unit of the paper's."""
        if metric == "params":
            return self.params
        return self.measured[metric].value if metric in self.measured else None


def compare(table: Table, ledger: Ledger) -> list[Compared]:
    """All rows of a table with our numbers."""
    return _with_changes(table, [_compare(row, ledger.of(row)) for row in table.rows])


def _compare(row: Row, results: Sequence[Result]) -> Compared:
    others: dict[str, list[Result]] = {}
    for result in results:
        if not result.follows(row):
            others.setdefault(f"{result.recipe} {result.flags}".strip(), []).append(result)
    variants = {how: _summaries(some) for how, some in others.items()}
    params, problem = None, None
    try:
        params = count_params(row)
    except InputError as error:  # a library is not installed
        problem = str(error)
    return Compared(row, params, _summaries([r for r in results if r.follows(row)]), variants, problem)


def _summaries(results: Sequence[Result]) -> dict[str, Summary]:
    found = {metric: summarize(results, metric) for metric in dict.fromkeys(result.metric for result in results)}
    return {metric: summary for metric, summary in found.items() if summary}


def _with_changes(table: Table, compared: list[Compared]) -> list[Compared]:
    """Fills the columns `*_change`: points of a score, percent of anything else, from the row of reference."""
    reference = next((entry for entry in compared if entry.row.row == table.reference), None)
    for column in table.columns:
        metric = column.removesuffix("_change")
        base = reference.measured.get(metric) if reference and metric != column else None
        for entry in compared:
            own = entry.measured.get(metric)
            if base and own and entry is not reference:
                change = own.value - base.value if metric == "acc1" else 100 * (own.value / base.value - 1)
                entry.measured[column] = Summary(change, change, None, [*own.results, *base.results])
    return compared


def count_params(row: Row) -> int | None:
    """Trainable parameters of a row's model, counted without making them; None for what cannot be built."""
    if row.model is None or row.data is None:
        return None
    overrides = {"in_channels": row.data.channels, **row.overrides}
    if not row.model.casefold().startswith("wavemix"):
        return _count(row.model, row.data.classes, row.task, overrides)
    depth = WaveMixConfig.from_notation(row.model).depth
    one, two = (_count(row.model, row.data.classes, row.task, {**overrides, "depth": blocks}) for blocks in (1, 2))
    return one + (depth - 1) * (two - one)  # all blocks are alike: to make two of them is enough, and faster


def _count(model: str, classes: int, task: Task, overrides: dict[str, Any]) -> int:
    with torch.device("meta"):
        made = build_model(model, classes, task, overrides)
    return sum(parameter.numel() for parameter in made.parameters() if parameter.requires_grad)
