"""AdamW to SGD: when it happens, what changes, and that a killed run loses nothing by it."""

from __future__ import annotations

import os
import signal
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import FSDPStrategy

from wavemix_pl.callbacks import OptimizerSwitch
from wavemix_pl.cli import main
from wavemix_pl.data import FashionMNIST
from wavemix_pl.errors import InputError
from wavemix_pl.modules import ClassificationModule


class Watch(Callback):
    """Notes the optimizer of each step, and can feed a metric of the test's choice."""

    def __init__(self, scores: list[float] | None = None) -> None:
        self.scores, self.optimizers, self.stepped = scores, [], []  # type: ignore[var-annotated]
        self.rates: list[int] = []

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        name = type(getattr(optimizer, "_optimizer", optimizer)).__name__
        if len(self.optimizers) <= trainer.current_epoch:
            self.optimizers.append(name)
            self.rates.append(len(trainer.lr_scheduler_configs))
        assert self.optimizers[-1] == name  # one optimizer in an epoch
        self.before = [parameter.detach().clone() for parameter in pl_module.parameters()]

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        moved = [not torch.equal(a, b) for a, b in zip(self.before, pl_module.parameters(), strict=True)]
        assert any(moved)  # the optimizer that steps is one that holds these parameters

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.scores is not None and not trainer.sanity_checking:
            pl_module.log("score", self.scores[trainer.current_epoch])


def train(
    root: Path,
    switch: OptimizerSwitch,
    *more: Callback,
    epochs: int = 6,
    check_val_every_n_epoch: int = 1,
    **module: Any,
) -> Any:
    L.seed_everything(0)
    model = ClassificationModule("WaveMix-Lite-4/1", in_channels=1, **module)
    trainer = L.Trainer(
        max_epochs=epochs,
        check_val_every_n_epoch=check_val_every_n_epoch,
        callbacks=[switch, *more],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    trainer.fit(model, datamodule=FashionMNIST(root=str(root), batch_size=20, val_fraction=0.25))
    return model, trainer


def test_final_epochs_with_a_scheduler(data_root: Path) -> None:
    watch = Watch()
    switch = OptimizerSwitch(final_epochs=2)
    scheduler = lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1)  # noqa: E731
    _, trainer = train(data_root, switch, watch, epochs=5, lr_scheduler=scheduler)
    assert watch.optimizers == ["AdamW"] * 3 + ["SGD"] * 2
    assert watch.rates == [1, 1, 1, 0, 0]
    assert switch.switch_epoch == 3
    group = trainer.optimizers[0].param_groups[0]
    assert (group["lr"], group["momentum"]) == (0.001, 0.9)


def test_patience(data_root: Path) -> None:
    watch = Watch([0.1, 0.5, 0.4, 0.5, 0.3, 0.2, 0.1, 0.1])  # best in epoch 1, two epochs without: switch at epoch 4
    switch = OptimizerSwitch(final_epochs=None, patience=2, stop_patience=3, monitor="score")
    _, trainer = train(data_root, switch, watch, epochs=20)
    assert watch.optimizers == ["AdamW"] * 4 + ["SGD"] * 3  # three epochs without improvement since: the end
    assert trainer.current_epoch == 7


@pytest.mark.parametrize("mode", ["max", "min"])
def test_whichever_comes_first_and_both_modes(data_root: Path, mode: Any) -> None:
    falling = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
    switch = OptimizerSwitch(final_epochs=1, patience=2, monitor="score", mode=mode)
    train(data_root, switch, Watch(falling))
    assert switch.switch_epoch == (3 if mode == "max" else 5)


def test_epochs_without_validation_are_not_judged(data_root: Path) -> None:
    """Validation every second epoch: the best score is that of epoch 1, the next judged epochs are 3 and 5."""
    watch = Watch([0.0, 0.5, 0.0, 0.4, 0.0, 0.4, 0.0, 0.4, 0.0, 0.4])
    switch = OptimizerSwitch(final_epochs=None, patience=3, monitor="score")
    train(data_root, switch, watch, epochs=8, check_val_every_n_epoch=2)
    assert switch.switch_epoch == 6


def test_patience_counts_from_the_first_epoch(data_root: Path) -> None:
    switch = OptimizerSwitch(final_epochs=None, patience=3, monitor="score")
    train(data_root, switch, Watch([0.1] * 9), epochs=6)
    assert switch.switch_epoch == 4  # best in epoch 0, then three without improvement


def test_restore_best_weights(data_root: Path) -> None:
    class Snapshots(Callback):
        def __init__(self) -> None:
            self.ends: list[dict[str, torch.Tensor]] = []
            self.start: dict[str, torch.Tensor] = {}

        def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            self.ends.append({name: value.clone() for name, value in pl_module.state_dict().items()})

        def on_train_batch_start(
            self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, index: int
        ) -> None:
            if trainer.current_epoch == 4 and index == 0:
                self.start = {name: value.clone() for name, value in pl_module.state_dict().items()}

    snapshots = Snapshots()
    switch = OptimizerSwitch(final_epochs=2, restore_best=True, monitor="score")
    train(data_root, switch, Watch([0.1, 0.9, 0.3, 0.2, 0.1, 0.1]), snapshots)
    assert switch.switch_epoch == 4
    best, last = snapshots.ends[1], snapshots.ends[3]
    assert all(torch.equal(value, snapshots.start[name]) for name, value in best.items())
    assert not all(torch.equal(value, snapshots.start[name]) for name, value in last.items())
    assert switch.state_dict()["best_weights"] is None  # not carried along once they are used


def test_the_modules_own_metric_is_the_default(data_root: Path) -> None:
    switch = OptimizerSwitch(final_epochs=1, patience=5)
    train(data_root, switch, epochs=2)
    assert (switch.monitor, switch.mode) == ("val_acc1", "max")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"final_epochs": None}, "final_epochs, patience"),
        ({"final_epochs": 0}, "final_epochs"),
        ({"patience": 0}, "patience"),
        ({"stop_patience": -1}, "stop_patience"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        OptimizerSwitch(**arguments)


def test_a_bad_second_optimizer_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="learning rate"):
        OptimizerSwitch(optimizer=lambda params: torch.optim.SGD(params, lr=-1.0))


def test_bad_runs(data_root: Path) -> None:
    with pytest.raises(InputError, match="final_epochs 50 leaves none of max_epochs 6"):
        train(data_root, OptimizerSwitch())
    with pytest.raises(InputError, match="counts back from max_epochs"):
        train(data_root, OptimizerSwitch(), epochs=-1)
    with pytest.raises(InputError, match=r"no metric 'nothing' was logged; there are .*val_acc1"):
        train(data_root, OptimizerSwitch(final_epochs=1, patience=1, monitor="nothing"))


def test_sharded_optimizers_are_refused() -> None:
    trainer = L.Trainer(strategy=FSDPStrategy(), accelerator="cpu", logger=False) if torch.cuda.is_available() else None
    strategy = trainer.strategy if trainer else FSDPStrategy()
    stand_in: Any = type("TrainerOfFSDP", (), {"strategy": strategy})()
    with pytest.raises(InputError, match="FSDPStrategy"):
        OptimizerSwitch().setup(stand_in, ClassificationModule(), "fit")


# -- killed and resumed, by the real command ------------------------------------------------------------------------

EPOCHS, FINAL, STEPS = 6, 3, 3  # AdamW in epochs 0-2, SGD in 3-5, three steps each


class KillAt(Callback):
    """Kills the whole process group without warning, before a step."""

    def __init__(self, epoch: int, step: int) -> None:
        self.epoch, self.step = epoch, step

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, index: int) -> None:
        if (trainer.current_epoch, index) == (self.epoch, self.step):
            trainer.strategy.barrier()
            os.killpg(0, signal.SIGKILL)


def _fit(root: str, run: str, kill: tuple[int, int] | None, options: list[str], switch: str) -> None:
    os.setsid()  # a process group of its own, to be killed whole
    os.environ["PL_GLOBAL_SEED"] = "0"
    torch.set_num_threads(1)
    callbacks = [f"{{class_path: OptimizerSwitch, init_args: {switch}}}"]
    if kill:
        name = f"{KillAt.__module__}.KillAt"
        callbacks.append(f"{{class_path: {name}, init_args: {{epoch: {kill[0]}, step: {kill[1]}}}}}")
    code = main(
        [
            *("fit", "--data=FashionMNIST", f"--data.root={root}", "--data.batch_size=20", "--data.val_fraction=0.25"),
            *("--model.variant=WaveMix-8/2 (level 2)", "--data.augment=flip", "--trainer.accelerator=cpu"),
            *(f"--trainer.max_epochs={EPOCHS}", f"--trainer.callbacks=[{', '.join(callbacks)}]"),
            *(
                f"--trainer.default_root_dir={run}",
                "--ckpt_path=last",
                "--trainer.enable_model_summary=false",
                *options,
            ),
        ]
    )
    os._exit(code)


AT_EPOCH = f"{{final_epochs: {FINAL}, restore_best: true}}"
# val_loss never falls by "max", but for the first epoch: the switch is due after two epochs without improvement
ON_PLATEAU = "{final_epochs: null, patience: 2, stop_patience: 3, monitor: val_loss, mode: max}"


def fit(root: Path, run: Path, options: list[str], kill: tuple[int, int] | None = None, switch: str = AT_EPOCH) -> None:
    context = get_context("forkserver")  # each run is a process of its own, that need not import everything anew
    context.set_forkserver_preload(["wavemix_pl.training", __name__])
    process = context.Process(target=_fit, args=(str(root), str(run), kill, options, switch))
    process.start()
    process.join(timeout=240)
    assert process.exitcode == (-signal.SIGKILL if kill else 0)


def last_checkpoint(run: Path) -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    return checkpoint


PRECISIONS = {
    "32": [],
    "bf16": ["--trainer.precision=bf16-mixed"],
    "ddp": ["--trainer.devices=2", "--trainer.strategy=ddp_fork"],
}


@pytest.fixture(scope="module", params=PRECISIONS)
def whole_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Any:
    """An uninterrupted run in one precision or strategy: its options and its last checkpoint."""
    run, options = tmp_path_factory.mktemp("whole") / "run", PRECISIONS[request.param]
    fit(data_root, run, options)
    return options, last_checkpoint(run)


@pytest.mark.parametrize("kill", [(1, 1), (3, 0), (4, 2)], ids=["before", "at", "after"])
def test_killed_and_resumed_ends_the_same(
    whole_run: Any, kill: tuple[int, int], tmp_path: Path, data_root: Path
) -> None:
    options, whole = whole_run
    run = tmp_path / "run"
    fit(data_root, run, options, kill)
    assert last_checkpoint(run)["epoch"] == kill[0] - 1
    fit(data_root, run, options)
    resumed = last_checkpoint(run)
    assert (resumed["epoch"], resumed["global_step"]) == (EPOCHS - 1, EPOCHS * STEPS)
    assert resumed["callbacks"]["OptimizerSwitch"]["switch_epoch"] == EPOCHS - FINAL
    assert "momentum" in resumed["optimizer_states"][0]["param_groups"][0]
    for part in ("state_dict", "optimizer_states"):
        torch.testing.assert_close(resumed[part], whole[part], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("kill", [(1, 1), (2, 2), (4, 1)])
def test_patience_survives_a_kill(kill: tuple[int, int], tmp_path: Path, data_root: Path) -> None:
    """How long there was no improvement, and which epoch was best, are part of what is resumed."""
    fit(data_root, tmp_path / "whole", [], switch=ON_PLATEAU)
    fit(data_root, tmp_path / "run", [], kill, switch=ON_PLATEAU)
    fit(data_root, tmp_path / "run", [], switch=ON_PLATEAU)
    whole, resumed = last_checkpoint(tmp_path / "whole"), last_checkpoint(tmp_path / "run")
    assert whole["callbacks"]["OptimizerSwitch"]["switched"]
    for part in ("epoch", "state_dict", "optimizer_states"):
        torch.testing.assert_close(resumed[part], whole[part], rtol=0, atol=0)
    assert resumed["callbacks"]["OptimizerSwitch"] == whole["callbacks"]["OptimizerSwitch"]


def test_the_second_optimizer_trained(whole_run: Any) -> None:
    """Guards the tests above: equal weights would prove nothing if SGD had not moved them."""
    _, whole = whole_run
    buffers = [state["momentum_buffer"] for state in whole["optimizer_states"][0]["state"].values()]
    assert buffers
    assert all(bool(buffer.abs().sum() > 0) for buffer in buffers)
