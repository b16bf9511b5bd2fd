"""Losses that are no numbers: the run stops at once and says where, or leaves the step out and nothing else changes."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor

from tests.crashes import RUN, SMALL, run_until
from wavemix_pl.callbacks.finite_loss import FiniteLoss, _Batch
from wavemix_pl.data import FashionMNIST
from wavemix_pl.errors import InputError
from wavemix_pl.modules import ClassificationModule

Run = Callable[..., int]
CHECKPOINTS = Path(RUN, "checkpoints")


class Spoil(Callback):
    """Puts a value into the images of a batch, on one process; keeps what they were."""

    spoiled: list[Tensor] = []

    def __init__(self, epoch: int, batch: int, value: float, rank: int = 0) -> None:
        self.epoch, self.batch, self.value, self.rank = epoch, batch, value, rank

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if (trainer.current_epoch, batch_idx, trainer.global_rank) == (self.epoch, self.batch, self.rank):
            self.spoiled.append(batch[0].clone())
            batch[0].fill_(self.value)


class SpoilGradient(Callback):
    """Makes a gradient NaN where the loss is finite, in the last step of an epoch."""

    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step == 9:
            next(pl_module.parameters()).grad.fill_(float("nan"))  # type: ignore[union-attr]  # there is one


class States(Callback):
    """Before each batch and after the last: weights with the optimizer's state, and batch norm's statistics."""

    seen: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        weights = {name: value.detach().clone() for name, value in pl_module.named_parameters()}
        for number, values in trainer.optimizers[0].state_dict()["state"].items():
            weights |= {f"{number} {name}": value.clone() for name, value in values.items()}
        self.seen.append((weights, {name: value.clone() for name, value in pl_module.named_buffers()}))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.on_train_batch_start(trainer, pl_module)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def spoil(value: str = ".nan", epoch: int = 1, batch: int = 2, rank: int = 0) -> str:
    values = f"epoch: {epoch}, batch: {batch}, value: {value}, rank: {rank}"
    return f"--trainer.callbacks+={{class_path: {__name__}.Spoil, init_args: {{{values}}}}}"


@pytest.fixture
def fit(run: Run, data_root: Path) -> Run:
    return lambda *options: run("fit", "--data=FashionMNIST", f"--data.root={data_root}", *SMALL, *options)


def last_line(captured: pytest.CaptureFixture[str]) -> str:
    return captured.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("value", [".nan", pytest.param(".inf", marks=pytest.mark.slow)])
def test_stops_and_says_where(fit: Run, value: str, data_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The images that it names are those of the batch, by an independent search of their pixels."""
    Spoil.spoiled = []
    assert fit(spoil(value)) == 2
    line = last_line(capsys)
    assert "loss nan in batch 2 of epoch 1 (step 8, learning rate 0.001, training images " in line
    assert "the last good checkpoint is run/checkpoints/last.ckpt" in line.replace(str(Path.cwd()) + "/", "")
    assert "--finite_loss.skip=10" in line
    checkpoint = torch.load(CHECKPOINTS / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 7
    assert all(torch.isfinite(value).all() for value in checkpoint["state_dict"].values())
    found = re.search(r"training images ([\d, ]+)\)", line)
    assert found is not None
    data = FashionMNIST(root=str(data_root))
    everything: Any = data.load("train")
    named = data.normalize(everything.images[[int(number) for number in found[1].split(", ")]])
    torch.testing.assert_close(Spoil.spoiled, [named])


def test_weights_that_are_not_finite_are_not_saved(fit: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """A NaN gradient in the last step of an epoch: the loss of no batch has shown it yet."""
    whole = "--checkpoint_last.every_n_train_steps=null"
    assert fit(f"--trainer.callbacks+={__name__}.SpoilGradient", whole, "--trainer.num_sanity_val_steps=0") == 2
    line = last_line(capsys)
    assert "is not finite after step 10, and not saved: the last good checkpoint is" in line
    assert torch.load(CHECKPOINTS / "last.ckpt", weights_only=True)["global_step"] == 5
    assert not list(CHECKPOINTS.glob("*.part"))


@pytest.mark.parametrize(
    ("options", "unchanged"),
    [
        ((), [7]),
        (("--trainer.accumulate_grad_batches=2",), [0, 2, 5, 7, 8, 10, 12]),  # all but 8 make no step
        pytest.param(("--trainer.precision=bf16-mixed", "--trainer.gradient_clip_val=1"), [7], marks=pytest.mark.slow),
        pytest.param(
            ("--model.optimizer=SGD", "--model.optimizer.lr=0.1", "--model.optimizer.momentum=0.9"),
            [7],
            marks=pytest.mark.slow,
        ),
        (("--model.optimizer=AdamW", "--model.optimizer.lr=0.1", "--model.optimizer.fused=true"), [7]),
    ],
)
def test_leaves_the_step_out(
    fit: Run, options: tuple[str, ...], unchanged: list[int], recwarn: pytest.WarningsRecorder
) -> None:
    """Its weights and the optimizer's state are as before it; the statistics as before its batch."""
    States.seen = []
    assert fit("--finite_loss.skip=1", spoil(), f"--trainer.callbacks+={__name__}.States", *options) == 0
    said = [str(warning.message) for warning in recwarn if "step left out, 1 of at most 1" in str(warning.message)]
    assert len(said) == 1
    assert "loss nan in batch 2 of epoch 1" in said[0]
    steps = list(enumerate(pairwise(States.seen)))
    assert [number for number, (before, after) in steps if same(before[0], after[0])] == unchanged
    assert [number for number, (before, after) in steps if same(before[1], after[1])] == [7]
    assert all(torch.isfinite(value).all() for part in States.seen[-1] for value in part.values())
    with Path(RUN, "metrics.csv").open() as file:
        assert [row["skipped_steps"] for row in csv.DictReader(file) if row["train_loss"]] == ["0.0", "1.0", "1.0"]


def test_stops_after_so_many(fit: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Counted over the parts of a run."""
    often = [spoil(epoch=0, batch=1), spoil(epoch=1, batch=1), spoil(epoch=2, batch=1)]
    assert fit("--finite_loss.skip=2", *often[:2], "--trainer.max_epochs=2") == 0
    assert fit("--finite_loss.skip=2", *often) == 2
    line = last_line(capsys)
    assert "in batch 1 of epoch 2" in line
    assert "after 2 steps that were left out (finite_loss.skip)" in line
    assert torch.load(CHECKPOINTS / "last.ckpt", weights_only=True)["global_step"] == 11


def test_negative(fit: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--finite_loss.skip=-1") == 2
    assert "finite_loss.skip must be at least 0, got -1" in last_line(capsys)


@pytest.mark.slow
@pytest.mark.parametrize("skip", [0, 1])
def test_processes_agree(skip: int, tmp_path: Path, data_root: Path) -> None:
    """One of two has a batch that is spoiled: both stop, or leave the step out, and go on with equal weights."""
    options = ("--trainer.devices=2", "--trainer.strategy=ddp_fork", f"--finite_loss.skip={skip}", spoil(rank=1))
    ended = run_until(tmp_path, data_root, options)
    checkpoint = torch.load(tmp_path / CHECKPOINTS / "last.ckpt", weights_only=True)
    assert all(torch.isfinite(value).all() for value in checkpoint["state_dict"].values())
    if skip:
        assert ended.code == 0, ended.said
        assert ended.said.count("step left out, 1 of at most 1: loss nan in batch 2 of epoch 1") == 1
        assert checkpoint["global_step"] == 15
    else:
        assert ended.code == 2, ended.said
        assert "wavemix-pl: error: loss nan in batch 2 of epoch 1 (step 8" in ended.said.splitlines()[-1]
        assert "Traceback" not in ended.said
        assert checkpoint["global_step"] == 7


@pytest.mark.parametrize("value", [float("nan"), 1.0])
def test_beside_a_gradient_scaler(data_root: Path, tmp_path: Path, value: float, recwarn: Any) -> None:
    """The scaler leaves out itself what is not finite; a gradient too large for its scale is not counted here."""
    data = FashionMNIST(root=str(data_root), batch_size=24)
    module = ClassificationModule("WaveMix-Lite-4/1", in_channels=1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16 if value != value else 2.0**120)  # type: ignore[attr-defined]
    States.seen, finite = [], FiniteLoss(skip=1)
    trainer = L.Trainer(
        callbacks=[Spoil(0, 1, value), States(), finite],
        plugins=[MixedPrecision("16-mixed", "cpu", scaler)],
        **{"max_epochs": 1, "accelerator": "cpu", "logger": False, "enable_checkpointing": False},  # type: ignore[arg-type]
        **{"default_root_dir": tmp_path, "enable_progress_bar": False, "limit_val_batches": 0},  # type: ignore[arg-type]
    )
    trainer.fit(module, data)
    steps = [not same(before[0], after[0]) for before, after in pairwise(States.seen)]
    statistics = [not same(before[1], after[1]) for before, after in pairwise(States.seen)]
    if value != value:
        assert (steps, statistics, finite.skipped) == ([True, False, True], [True, False, True], 1)
        assert scaler.get_scale() == 2.0**15
    else:
        assert (steps, statistics, finite.skipped) == ([False] * 3, [True] * 3, 0)
        assert scaler.get_scale() == 2.0**117


class OnTheWay:
    """A stand-in for an event of a GPU."""

    happened = waited_for = False

    def query(self) -> bool:
        return self.happened

    def synchronize(self) -> None:
        self.waited_for = self.happened = True


def test_a_gpu_is_not_waited_for_before_it_must_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss on its way to the host is looked at when it is there, or at the end of the epoch; the first is named."""
    events = [OnTheWay() for _ in range(3)]
    losses = [torch.tensor(value) for value in (1.0, float("nan"), float("nan"))]
    batches = iter([_Batch(0, index, index, 0.1, losses[index], events[index]) for index in range(3)])  # type: ignore[arg-type]
    finite = FiniteLoss()
    monkeypatch.setattr(finite, "_batch", lambda *_: next(batches))
    trainer: Any = SimpleNamespace(world_size=1, checkpoint_callbacks=[], ckpt_path=None, train_dataloader=None)
    module: Any = None
    for index in range(3):
        finite.on_train_batch_end(trainer, module, {"loss": losses[index]}, None, index)
    assert not any(event.waited_for for event in events)
    with pytest.raises(InputError, match=r"loss nan in batch 1 of epoch 0 .*there is no checkpoint yet"):
        finite.on_train_epoch_end(trainer, module)
    assert [event.waited_for for event in events] == [True, True, False]
