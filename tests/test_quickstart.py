"""The first run of the README, whole."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

RECIPE = Path(__file__).parents[1] / "experiments" / "recipes" / "quickstart.yaml"


@pytest.mark.slow
def test_quickstart_reaches_80_percent(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fit", "--config", RECIPE) == 0
    assert run("test", "--config", RECIPE, "--ckpt_path=runs/quickstart/checkpoints/best.ckpt") == 0
    found = re.search(r"test_acc1\s+(\d\.\d+)", capsys.readouterr().out)
    assert found is not None
    assert float(found[1]) >= 0.80
    assert Path("runs/quickstart/predictions.png").stat().st_size > 10_000
