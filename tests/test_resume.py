"""A run that is killed at any moment goes on with the same command and ends as if it had never stopped, bit for bit."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.crashes import RUN, SMALL, count_events, crash, fit, moments, outcome
from wavemix_pl.callbacks.last_checkpoint import WholeFiles

Run = Callable[..., int]
ALL = (
    "--data.augment=trivial",
    "--data.regularization.flip=true",
    "--data.regularization.mixup=0.5",
    "--data.regularization.cutmix=1.0",
    "--data.regularization.erasing=0.5",
    "--model.overrides.dropout=0.5",
    "--model.optimizer=AdamW",
    "--model.optimizer.lr=0.01",
)
SWITCH = "{class_path: OptimizerSwitch, init_args: {final_epochs: 1, restore_best: true}}"
EMA = "{class_path: EMAWeightAveraging, init_args: {decay: 0.9}}"
STOP = "{class_path: EarlyStopping, init_args: {monitor: val_loss, mode: max, patience: 1}}"
RATES = "{class_path: LearningRateMonitor, init_args: {logging_interval: step}}"
CONFIGS: dict[str, Sequence[str]] = {
    "all": (f"--trainer.callbacks=[{SWITCH}, {EMA}]",),
    "seldom": ("--checkpoint_last.every_n_train_steps=3",),
    "accumulated": ("--trainer.accumulate_grad_batches=2",),
    "limited": ("--trainer.limit_train_batches=3",),
    "validated-within-epochs": ("--trainer.val_check_interval=2", "--checkpoint_last.every_n_train_steps=2"),
    "validated-across-epochs": ("--trainer.val_check_interval=3", "--trainer.check_val_every_n_epoch=null"),
    "rates": (
        "--model.lr_scheduler=OneCycleLR",
        *("--model.lr_scheduler.max_lr=0.01", "--model.lr_scheduler.total_steps=15", "--model.lr_interval=step"),
        *(f"--trainer.callbacks=[{RATES}]", "--trainer.log_every_n_steps=1"),
    ),
    "warmup": (
        "--model.lr_scheduler=wavemix_pl.schedules.WarmupCosine",
        *("--model.lr_scheduler.epochs=3", "--model.lr_scheduler.warmup_epochs=1"),
        "--model.lr_scheduler.cooldown_epochs=0",
    ),
    "plateau": (
        "--model.lr_scheduler=lightning.pytorch.cli.ReduceLROnPlateau",
        *("--model.lr_scheduler.monitor=val_acc5", "--model.lr_scheduler.patience=0"),
        *("--model.lr_scheduler.threshold=0.5", "--trainer.max_epochs=4"),
    ),
    "stopped": (f"--trainer.callbacks=[{STOP}]", "--trainer.max_epochs=9"),
    "whole-epochs": ("--checkpoint_last.every_n_train_steps=null",),
    "seldom-validated": ("--checkpoint_last.every_n_train_steps=null", "--trainer.check_val_every_n_epoch=2"),
    "max-steps": ("--trainer.max_steps=8",),
    "unfreezing": ("--trainer.callbacks=[GradualUnfreezing]",),
    "processes": (
        *("--trainer.devices=2", "--trainer.strategy=ddp_fork", "--data.val_fraction=0.1625"),  # 67 and 13 images
    ),
}


def ends_the_same(folder: Path, root: Path, options: Sequence[str], seed: int, kills: int) -> None:
    """Kills a run `kills` times, one after another; once it has ended, the same command changes nothing."""
    assert fit(folder / "whole", root, options)
    chosen = moments(seed, kills, count_events(folder / "whole"))
    assert crash(folder / "killed", root, chosen, options, workers=(0, 2, 1))
    assert outcome(folder / "killed") == outcome(folder / "whole")
    assert fit(folder / "killed", root, options)
    assert outcome(folder / "killed") == outcome(folder / "whole")


def test_killed_three_times(tmp_path: Path, data_root: Path) -> None:
    ends_the_same(tmp_path, data_root, (*ALL, *CONFIGS["all"]), seed=0, kills=3)


@pytest.mark.slow
def test_killed_at_twenty_moments(tmp_path: Path, data_root: Path) -> None:
    """Not one run killed so often, but four, each of them killed on its whole way."""
    options = (*ALL, *CONFIGS["all"])
    assert fit(tmp_path / "whole", data_root, options)
    whole, events = outcome(tmp_path / "whole"), count_events(tmp_path / "whole")
    killed = 0
    for seed in range(4):
        killed += crash(tmp_path / str(seed), data_root, moments(seed, 6, events), options, workers=(0, 2, 1))
        assert outcome(tmp_path / str(seed)) == whole
    assert killed >= 20


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_killed_in_every_configuration(name: str, tmp_path: Path, data_root: Path) -> None:
    ends_the_same(tmp_path, data_root, (*ALL, *CONFIGS[name]), seed=len(name), kills=4)


def test_no_checkpoint_within_an_epoch_of_other_batches(tmp_path: Path, data_root: Path, run: Run, capfd: Any) -> None:
    """A run that stopped in the middle of epoch 1; its throughput is that of whole epochs all the same."""
    resources = "--trainer.callbacks=[Resources]"
    assert not fit(tmp_path, data_root, [resources], last=110)
    command = ("fit", "--data=FashionMNIST", f"--data.root={data_root}", *SMALL, resources)
    for changed in ("--data.batch_size=6", "--trainer.limit_train_batches=4"):
        assert run(*command, changed) == 2
        assert "within an epoch of 5 batches" in capfd.readouterr().err
    assert run(*command) == 0
    report = json.loads(Path(RUN, "resources.json").read_text())
    assert 0 < report["epoch_s"] < 60
    assert report["train_images_per_s"] > 1


def test_no_checkpoint_between_the_last_batch_and_validation(run: Run, data_root: Path, capfd: Any) -> None:
    """Lightning's own callback writes it, and Lightning would begin the next epoch with it."""
    command = ("fit", "--data=FashionMNIST", f"--data.root={data_root}", *SMALL, "--trainer.max_epochs=1")
    own = "{class_path: ModelCheckpoint, init_args: {dirpath: other, filename: x, every_n_train_steps: 5}}"
    assert run(*command, f"--trainer.callbacks=[{own}]") == 0
    assert run(*command, "--ckpt_path=other/x.ckpt", "--trainer.default_root_dir=new", "--trainer.max_epochs=2") == 2
    assert "between an epoch's last batch and its validation" in capfd.readouterr().err


def test_checkpoints_are_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "new" / "last.ckpt"
    files = WholeFiles()
    files.save_checkpoint({"a": 1}, path)
    with pytest.raises((AttributeError, TypeError, RuntimeError, pickle.PicklingError)):
        files.save_checkpoint({"a": lambda: 1}, path)
    assert torch.load(path, weights_only=True) == {"a": 1}
