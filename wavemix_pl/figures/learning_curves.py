"""How a run went: loss and scores by epoch, from its `metrics.csv`."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from wavemix_pl.errors import InputError
from wavemix_pl.pictures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curves = Mapping[str, Mapping[int, float]]  # name of a metric -> epoch, from 1 -> value
_SCORES = {"acc1": "top-1, %", "miou": "mIoU, %"}
_COLORS = {"train": "#d9772b", "val": "#1f77b4"}
_WORDS = {"train": "training", "val": "validation"}


def read_curves(run: Path) -> Curves:
    """What the run's directory says of each epoch, losses as they are and scores in percent.

    Raises:
        InputError: There is nothing to read, or not one whole epoch.
    """
    path = run / "metrics.csv"
    if not path.is_file():
        raise InputError(f"needs the directory of a run: {run} has no metrics.csv")
    curves: dict[str, dict[int, float]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            for stage in _WORDS:
                for name in ("loss", *_SCORES):
                    if text := row.get(f"{stage}_{name}"):
                        percent = 100 if name in _SCORES else 1
                        curves.setdefault(f"{stage}_{name}", {})[int(row["epoch"]) + 1] = percent * float(text)
    if not curves.get("val_loss"):
        raise InputError(f"needs a run that was validated at least once: {path} tells of no epoch")
    return curves


def switch_of(run: Path) -> int | None:
    """The epoch, from 1, in which `OptimizerSwitch` came by its `final_epochs`; None where it did not so."""
    try:
        trainer = yaml.safe_load((run / "config.yaml").read_text())["trainer"]
    except (OSError, yaml.YAMLError, KeyError, TypeError):  # curves can be drawn without
        return None
    for callback in trainer.get("callbacks") or []:
        if callback.get("class_path", "").endswith("OptimizerSwitch"):
            final = callback.get("init_args", {}).get("final_epochs")
            return trainer["max_epochs"] - final + 1 if final else None
    return None


def draw_learning_curves(curves: Curves, switch: int | None = None) -> Figure:
    """Losses on the left, the score on the right; the best epoch is marked, and the switch of the optimizer.

    Args:
        curves: As `read_curves` has them.
        switch: Epoch of the switch, from 1.
    """
    figure = new_figure(9, 3.4)
    score = next((name for name in _SCORES if curves.get(f"val_{name}")), None)
    panels = {"loss": "loss", **({score: _SCORES[score]} if score else {})}
    last = max(curves["val_loss"])
    grid: Any = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (metric, label) in zip(grid, panels.items(), strict=True):
        for stage, words in _WORDS.items():
            values = curves.get(f"{stage}_{metric}", {})
            if values:
                axes.plot(list(values), list(values.values()), color=_COLORS[stage], label=words, linewidth=1)
        if metric == score:
            of_validation = curves[f"val_{metric}"]
            best = max(of_validation, key=lambda epoch: of_validation[epoch])
            name = f"best: {of_validation[best]:.2f} in epoch {best}"
            axes.plot(best, of_validation[best], "o", color=_COLORS["val"], label=name)
        if switch and switch <= last:
            axes.axvline(switch - 0.5, color="#888888", linestyle="--", linewidth=1, label="optimizer switched")
        axes.set(xlabel="epoch", ylabel=label)
        axes.grid(visible=True, color="#8884")
        axes.legend(frameon=False, fontsize=8)
    return figure
