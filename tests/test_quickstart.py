"""The first runs of the README, whole."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

RECIPES = Path(__file__).parents[1] / "experiments" / "recipes"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "score", "least"), [("quickstart", "acc1", 0.80), ("quickstart-segmentation", "miou", 0.60)]
)
def test_quickstart(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], name: str, score: str, least: float
) -> None:
    recipe = RECIPES / f"{name}.yaml"
    assert run("fit", "--config", recipe) == 0
    with Path(f"runs/{name}/metrics.csv").open() as file:
        reached = [float(row[f"val_{score}"]) for row in csv.DictReader(file) if row[f"val_{score}"]]
    assert max(reached) >= least
    assert run("test", "--config", recipe, f"--ckpt_path=runs/{name}/checkpoints/best.ckpt") == 0
    assert f"test_{score}" in capsys.readouterr().out
    assert Path(f"runs/{name}/predictions.png").stat().st_size > 10_000


def test_schedule_of_the_segmentation_is_as_long_as_its_training() -> None:
    recipe = yaml.safe_load((RECIPES / "quickstart-segmentation.yaml").read_text())
    data, steps = recipe["data"]["init_args"], recipe["model"]["init_args"]["lr_scheduler"]["init_args"]["total_steps"]
    assert steps == recipe["trainer"]["max_epochs"] * (data["scenes"] // data["batch_size"])
