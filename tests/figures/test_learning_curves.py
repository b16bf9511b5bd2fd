"""How a run went, and what its model confuses: drawn from the files of a real run."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from wavemix_pl.data import EmbeddedFashionMNIST
from wavemix_pl.errors import InputError
from wavemix_pl.figures import draw_learning_curves, read_curves
from wavemix_pl.figures.given import read_given
from wavemix_pl.figures.learning_curves import switch_of
from wavemix_pl.figures.verb import FIGURES

Run = Callable[..., int]
SWITCH = "--trainer.callbacks=[{class_path: OptimizerSwitch, init_args: {final_epochs: 1}}]"


@pytest.fixture
def trained(run: Run, data_root: Path) -> Path:
    options = ("--model.variant=WaveMix-Lite-8/1", "--data.batch_size=20", "--trainer.max_epochs=3", SWITCH)
    root = ("--trainer.default_root_dir=run", f"--data.root={data_root}")
    assert run("fit", "--data=FashionMNIST", *root, *options) == 0
    return Path("run")


def test_curves_are_those_of_the_file(trained: Path) -> None:
    figure = draw_learning_curves(read_curves(trained), switch_of(trained))
    with (trained / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    losses, scores = figure.axes
    for axes, metric, scale in ((losses, "loss", 1), (scores, "acc1", 100)):
        drawn = {line.get_label(): line for line in axes.lines}
        for stage, label in (("train", "training"), ("val", "validation")):
            expected = [scale * float(row[f"{stage}_{metric}"]) for row in rows if row[f"{stage}_{metric}"]]
            assert len(expected) == 3
            assert list(drawn[label].get_xdata()) == [1, 2, 3]
            assert np.allclose(np.asarray(drawn[label].get_ydata()), expected)
        assert list(drawn["optimizer switched"].get_xdata()) == [2.5, 2.5]
    of_validation = [float(row["val_acc1"]) for row in rows if row["val_acc1"]]
    epoch = of_validation.index(max(of_validation)) + 1
    assert f"best: {100 * max(of_validation):.2f} in epoch {epoch}" in [line.get_label() for line in scores.lines]


def test_by_the_verb(run: Run, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = trained / "checkpoints" / "best.ckpt"
    given = (f"--ckpt_path={checkpoint}", "--data=EmbeddedFashionMNIST", "--format=png", "--output=out")
    assert run("figures", "learning-curves", "confusion", *given) == 0
    assert {path.name for path in Path("out").iterdir()} == {"learning-curves.png", "confusion.png"}

    assert run("figures", "learning-curves", "--weights=fashion-mnist/wavemix-lite-8-5", "--output=no") == 2
    assert "learning-curves needs the checkpoint of a run: pass --ckpt_path=RUN/" in capsys.readouterr().err
    (trained / "metrics.csv").unlink()
    assert run("figures", "learning-curves", *given[:1], "--output=no") == 2
    assert "learning-curves needs the directory of a run: run has no metrics.csv" in capsys.readouterr().err
    (trained / "metrics.csv").write_text("epoch,step,train_loss\n0,1,2.5\n")
    with pytest.raises(InputError, match="tells of no epoch"):
        read_curves(trained)
    (trained / "config.yaml").unlink()
    assert switch_of(trained) is None


def test_confusions_are_counted(classifier: Path) -> None:
    """One image at a time, as the oracle."""
    given = read_given(str(classifier), None, None, "data", None, 0)
    ((_, figure),) = FIGURES["confusion"][1](given)
    data = EmbeddedFashionMNIST()
    images = data.load("test")
    counts = torch.zeros(10, 10)
    assert given.source is not None
    model = given.source.model
    with torch.no_grad():
        predicted = model(data.normalize(images.images)).argmax(1)
    for true, guess in zip(images.targets.tolist(), predicted.tolist(), strict=True):
        counts[true, guess] += 1
    shares = counts / counts.sum(1, keepdim=True)
    assert np.allclose(np.asarray(figure.axes[0].images[0].get_array()), shares.numpy(), atol=1e-6)
