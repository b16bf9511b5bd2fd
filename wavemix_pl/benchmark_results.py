"""What `benchmark` measured of a model, and the table of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Result:
    """What was measured of one model in one form at one image size.

    Attributes:
        model: In the paper's notation, or a peer.
        varied: Its values of the fields that `vary` names.
        form: Of `wavemix_pl.workload.Form`.
        precision: "float32", or which other.
        image_size: "HxW".
        params_m: Millions of parameters.
        images_per_s: At the median time; of one image at a time, the paper's FPS.
        ms: Median time of a batch, in milliseconds.
        ms_min: The shortest.
        ms_max: The longest.
        ratio: How many times as fast as the first of the same model and size: value, precision, form.
        gflops_per_s: Billions of floating-point operations that convolutions and matrix products do in a second; None
            for compiled models, which hide them.
        share_of_peak: That, as a share of what one large convolution does in the same precision in the same run.
        difference: Of the logits from the first form's, at most; in inference.
        saved_mb: What the forward pass keeps for the backward pass, in megabytes; in training.
        memory_gb: By how much the memory in use grew, at most, from before there was a model; if asked.
        largest_batch: For the memory budget, by a straight line through two measured batches; if asked.
    """

    model: str
    varied: dict[str, Any]
    form: str
    precision: str
    image_size: str
    params_m: float
    images_per_s: float
    ms: float
    ms_min: float
    ms_max: float
    ratio: float
    gflops_per_s: float | None
    share_of_peak: float | None
    difference: float | None
    saved_mb: float | None
    memory_gb: float | None
    largest_batch: int | None


def print_results(results: Sequence[Result], machine: dict[str, str | int], options: dict[str, Any]) -> None:
    """A table with the columns that were measured, and a line about how."""
    columns: dict[str, Callable[[Result], str | None]] = {
        "form": lambda r: r.form + {"float32": "", "bfloat16": " bf16", "float16": " fp16"}[r.precision],
        "image size": lambda r: r.image_size,
        "M par.": lambda r: f"{r.params_m:.2f}",
        "images/s": lambda r: f"{r.images_per_s:.2f}",
        "ms": lambda r: f"{r.ms:.1f}",
        "min-max": lambda r: f"{r.ms_min:.1f}-{r.ms_max:.1f}",
        "ratio": lambda r: f"{r.ratio:.2f}",
        "GFLOP/s": lambda r: None if r.gflops_per_s is None else f"{r.gflops_per_s:.0f}",
        "of peak": lambda r: None if r.share_of_peak is None else f"{r.share_of_peak:.0%}",
        "difference": lambda r: None if r.difference is None else f"{r.difference:.1e}",
        "saved MB": lambda r: None if r.saved_mb is None else f"{r.saved_mb:.1f}",
        "memory GB": lambda r: None if r.memory_gb is None else f"{r.memory_gb:.2f}",
        "largest batch": lambda r: None if r.largest_batch is None else f"{r.largest_batch}",
    }
    shown = {name: [cell(r) for r in results] for name, cell in columns.items()}
    shown = {name: cells for name, cells in shown.items() if any(cell is not None for cell in cells)}
    table = Table("model", *shown)
    for column in table.columns[2:]:
        column.justify = "right"
    names = [", ".join([r.model, *(f"{field} {value}" for field, value in r.varied.items())]) for r in results]
    for i, name in enumerate(names):
        table.add_row("" if name in names[max(i - 1, 0) : i] else name, *(cells[i] or "" for cells in shown.values()))
    console = Console(width=None if sys.stdout.isatty() else 150)
    console.print(table)
    step = "training steps (AdamW)" if options["training"] else "inference"
    console.print(
        f"{step}, batches of {options['batch_size']}, {machine['device']}, {machine['threads']} CPU threads, "
        f"torch {machine['torch']}, allocator: {machine['allocator']}",
        highlight=False,
    )
