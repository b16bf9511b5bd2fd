"""Runs that get a scheduler's signal: the exit code, the checkpoint, and that nothing is lost between two parts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from tests.crashes import RUN, SMALL, Ended, fit, outcome, run_until, terminate
from wavemix_pl.callbacks import Preemption
from wavemix_pl.errors import InputError
from wavemix_pl.modules import ClassificationModule

ROOT = Path(__file__).parents[2]
EPOCHS_ONLY = ("--checkpoint_last.every_n_train_steps=null", "--data.augment=trivial", "--model.overrides.dropout=0.5")
MORE = ("--trainer.accumulate_grad_batches=2", "--trainer.val_check_interval=3")


def use_signal() -> None:
    os.kill(os.getpid(), signal.SIGUSR1)


def last_step(folder: Path) -> int:
    checkpoint = torch.load(folder / RUN / "checkpoints" / "last.ckpt", weights_only=True)
    return int(checkpoint["global_step"])


@pytest.mark.parametrize(
    ("what", "code", "moments", "options"),
    [
        (terminate, 143, [70], EPOCHS_ONLY),
        # the first in the sanity check
        pytest.param(use_signal, 138, [3, 20, 15, 12], EPOCHS_ONLY, marks=pytest.mark.slow),
        pytest.param(
            *(terminate, 143, [20, 15]),
            (*EPOCHS_ONLY, "--trainer.devices=2", "--trainer.strategy=ddp_fork"),
            marks=pytest.mark.slow,
        ),
        pytest.param(terminate, 143, [20, 16, 12], (*EPOCHS_ONLY, *MORE), marks=pytest.mark.slow),
    ],
)
def test_ends_with_a_checkpoint(
    what: Any, code: int, moments: list[int], options: tuple[str, ...], tmp_path: Path, data_root: Path
) -> None:
    assert fit(tmp_path / "whole", data_root, options)
    parts = tmp_path / "parts"
    steps = [0]
    for moment in moments:
        ended = run_until(parts, data_root, options, moment, what)
        steps.append(last_step(parts))
        assert ended.code == code, ended.said
        line = ended.said.splitlines()[-1]
        assert f"after step {steps[-1]}; run/checkpoints/last.ckpt is written, the same command with" in line
        assert steps[-1] > steps[-2]
    assert fit(parts, data_root, options)
    assert outcome(parts) == outcome(tmp_path / "whole")


@pytest.mark.slow
def test_a_run_that_comes_to_its_end_exits_with_0(tmp_path: Path, data_root: Path) -> None:
    """The signal comes in the last epoch's validation."""
    options = (*EPOCHS_ONLY, "--trainer.max_epochs=1")
    ended: Ended = run_until(tmp_path, data_root, options, last=42, what=terminate)
    assert ended.code == 0
    assert last_step(tmp_path) == 5


class SignalTo(Callback):
    """Sends a signal after a step of the second epoch: to one process, or to all of the run with their workers."""

    def __init__(self, rank: int | None, number: int) -> None:
        self.rank, self.number = rank, number

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.global_step == 7 and self.rank is None and trainer.is_global_zero:
            os.killpg(0, self.number)
        elif trainer.global_step == 7 and self.rank == trainer.global_rank:
            os.kill(os.getpid(), self.number)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [None, 1])
@pytest.mark.parametrize("launcher", [["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"], []])
def test_processes_stop_at_one_step(rank: int | None, launcher: list[str], tmp_path: Path, data_root: Path) -> None:
    """Whichever of them got the signal; loading processes outlive it."""
    options = (*SMALL, *EPOCHS_ONLY, "--data.num_workers=1", "--trainer.devices=2", "--trainer.strategy=ddp")
    command = [sys.executable, *launcher, "-m", "wavemix_pl", "fit", "--data=FashionMNIST", f"--data.root={data_root}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    how: dict[str, Any] = {"env": environment, "start_new_session": True, "capture_output": True, "text": True}
    values = f"{{rank: {'null' if rank is None else rank}, number: {int(signal.SIGTERM)}}}"
    callback = f"--trainer.callbacks+={{class_path: {__name__}.SignalTo, init_args: {values}}}"
    for folder in ("whole", "parts"):
        (tmp_path / folder).mkdir()
    whole = subprocess.run([*command, *options], cwd=tmp_path / "whole", timeout=200, **how)
    assert whole.returncode == 0, whole.stderr
    ended = subprocess.run([*command, *options, callback], cwd=tmp_path / "parts", timeout=200, **how)
    if launcher and rank is None:
        assert ended.returncode != 0  # torchrun was sent the signal as well, and sends it on
    else:
        assert ended.returncode == (1 if launcher else 143), ended.stderr  # torchrun's own code for any failure
    assert "ended by SIGTERM after step 7" in ended.stderr
    assert last_step(tmp_path / "parts") == 7
    rest = subprocess.run([*command, *options], cwd=tmp_path / "parts", timeout=200, **how)
    assert rest.returncode == 0, rest.stderr
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")


def test_needs_the_checkpoint() -> None:
    trainer = L.Trainer(callbacks=[Preemption()], logger=False, enable_checkpointing=False, accelerator="cpu")
    with pytest.raises(InputError, match="needs LastCheckpoint"):
        trainer.fit(ClassificationModule("WaveMix-Lite-4/1"), torch.utils.data.DataLoader([]))  # type: ignore[arg-type]
