"""What the paper claims, and whether the recorded runs say so too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wavemix_pl.paper.comparison import Compared
from wavemix_pl.paper.results import Summary
from wavemix_pl.paper.rows import Claim, Table

_SEEDS = 3  # the fewest of each row, with which a verdict is possible


@dataclass(frozen=True)
class Judged:
    """A claim with what was measured.

    Attributes:
        claim: The paper's.
        verdict: "holds" where every run of the one row lies above every run of the other, "does not hold" where all lie
            below, "cannot be told" where they overlap, and "not measured" with fewer than three seeds of each. Where
            there is no difference, three runs lie above three others by chance once in twenty times.
        difference: Of the means, in the metric's unit; None where it was not measured.
    """

    claim: Claim
    verdict: str
    difference: float | None = None


def judge(table: Table, compared: Sequence[Compared]) -> list[Judged]:
    """All claims that a table tests."""
    by_label = {entry.row.row: entry for entry in compared}
    return [_judge(claim, by_label) for claim in table.claims]


def _judge(claim: Claim, by_label: dict[str, Compared]) -> Judged:
    higher, lower = (by_label[label].measured.get(claim.metric) for label in (claim.higher, claim.lower))
    if higher is None or lower is None or min(len(_values(higher)), len(_values(lower))) < _SEEDS:
        return Judged(claim, "not measured")
    verdict = "cannot be told"
    if min(_values(higher)) > max(_values(lower)):
        verdict = "holds"
    elif max(_values(higher)) < min(_values(lower)):
        verdict = "does not hold"
    return Judged(claim, verdict, higher.mean - lower.mean)


def _values(summary: Summary) -> list[float]:
    return [result.value for result in summary.results]


def claims_grid(judged: Sequence[Judged]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells: each claim, where the paper makes it, and the verdict."""
    lines = []
    for entry in judged:
        change = "-" if entry.difference is None else f"{entry.difference:+.2f}"
        lines.append([entry.claim.text, entry.claim.source, entry.verdict, change])
    return ["claim", "where", "here", "difference of the means"], lines
