"""Which parts learn in which epoch, and that a killed run goes on with the same ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor

from tests.callbacks import test_optimizer_switch as killing
from tests.test_modules import trainer
from wavemix_pl.callbacks import GradualUnfreezing, OptimizerSwitch
from wavemix_pl.data import FashionMNIST, FashionScenes
from wavemix_pl.errors import InputError
from wavemix_pl.modules import ClassificationModule, SegmentationModule

EPOCHS, STEPS = 6, 3


class Learned(Callback):
    """The parts that each epoch changed, and those whose batch norms counted batches in it."""

    def __init__(self) -> None:
        self.changed: list[str] = []
        self.counted: list[str] = []

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.before = {name: value.clone() for name, value in pl_module.model.state_dict().items()}  # type: ignore[union-attr,operator]

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        state = pl_module.model.state_dict()  # type: ignore[union-attr,operator]
        names = [name for name in state if not torch.equal(state[name], self.before[name])]
        self.changed.append(parts(name for name in names if not is_of_norm(name)))
        self.counted.append(parts(name for name in names if is_of_norm(name)))


def is_of_norm(name: str) -> bool:
    return name.endswith(("running_mean", "running_var", "num_batches_tracked"))


def parts(names: Any) -> str:
    """A letter or digit for each: "h2s" are the head, block 2 and the stem."""
    found = {name.split(".")[1] if name.startswith("blocks") else name[0] for name in names}
    return "".join(sorted(found, key="h9876543210s".index))


def train(root: Path, *callbacks: Callback, epochs: int = EPOCHS, fit: Any = None, **of: Any) -> Any:
    L.seed_everything(0)
    run = trainer(max_epochs=epochs, callbacks=[*callbacks], **of.pop("trainer", {}))
    module = ClassificationModule(**{"variant": "WaveMix-8/3 (level 2)", "in_channels": 1, **of})
    run.fit(module, datamodule=FashionMNIST(root=str(root), batch_size=20, val_fraction=0.25), **(fit or {}))
    return module, run


@pytest.mark.parametrize("freeze", ["none", "backbone"])
@pytest.mark.parametrize("execution", ["plain", "fast", "lean", "checkpointed"])
def test_order(data_root: Path, execution: Any, freeze: Any) -> None:
    learned = Learned()
    train(data_root, GradualUnfreezing(), learned, execution=execution, freeze=freeze, overrides={"stem": "patchify"})
    assert learned.changed == ["h", "h2", "h21", "h210", "h210s", "h210s"]
    assert learned.counted == ["", "2", "21", "210", "210s", "210s"]


def test_several_at_once(data_root: Path) -> None:
    learned = Learned()
    train(data_root, GradualUnfreezing(every_n_epochs=2, blocks_at_once=2), learned, epochs=8)
    assert learned.changed == ["h", "h", "h21", "h21", "h210", "h210", "h210s", "h210s"]


def test_a_segmenter() -> None:
    learned = Learned()
    module = SegmentationModule(variant="WaveMix-8/2 (level 2)", num_classes=11, in_channels=1)
    data = FashionScenes(scenes=8, val_scenes=4, test_scenes=1, batch_size=4)
    trainer(max_epochs=4, callbacks=[GradualUnfreezing(), learned]).fit(module, datamodule=data)
    assert learned.changed == ["h", "h1", "h10", "h10s"]


def test_numbers_do_not_depend_on_the_execution(data_root: Path) -> None:
    states = []
    for execution in ("plain", "fast", "lean", "checkpointed"):
        sgd = {"optimizer": lambda params: torch.optim.SGD(params, lr=0.01), "overrides": {"dropout": 0.0}}
        module, _ = train(data_root, GradualUnfreezing(), epochs=3, execution=execution, **sgd)
        states.append(module.model.state_dict())
    for state in states[1:]:
        torch.testing.assert_close(state, states[0], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_compiled(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile notices what is unfrozen."""
    compile = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compile(self, backend="aot_eager"))
    learned = Learned()
    train(data_root, GradualUnfreezing(), learned, epochs=5, compile=True)
    assert learned.changed == ["h", "h2", "h21", "h210", "h210s"]
    torch._dynamo.reset()


def test_with_a_switch_of_the_optimizer(data_root: Path) -> None:
    """The second one's weight decay leaves alone what is frozen when it comes; what is unfrozen later, it trains."""
    learned = Learned()
    sgd = lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9, weight_decay=0.5)  # noqa: E731
    switch = OptimizerSwitch(sgd, final_epochs=4, restore_best=True)
    _, run = train(data_root, GradualUnfreezing(), switch, learned)
    assert switch.switch_epoch == 2
    assert learned.changed == ["h", "h2", "h21", "h210", "h210s", "h210s"]
    assert isinstance(run.optimizers[0], torch.optim.SGD)


# -- killed and resumed ---------------------------------------------------------------------------------------------

OPTIONS = {
    "32": ["--trainer.callbacks+=GradualUnfreezing"],
    "ddp": ["--trainer.callbacks+=GradualUnfreezing", "--trainer.devices=2", "--trainer.strategy=ddp_fork"],
}


@pytest.fixture(scope="module", params=OPTIONS)
def whole_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Any:
    """An uninterrupted run with an optimizer switch in epoch 3, and two blocks: the stem's turn is epoch 3 as well."""
    run, options = tmp_path_factory.mktemp("whole") / "run", OPTIONS[request.param]
    killing.fit(data_root, run, options)
    return options, killing.last_checkpoint(run)


@pytest.mark.parametrize("kill", [(1, 1), (2, 0), (4, 2)], ids=["one block", "two blocks", "all"])
def test_killed_and_resumed_ends_the_same(
    whole_run: Any, kill: tuple[int, int], tmp_path: Path, data_root: Path
) -> None:
    options, whole = whole_run
    killing.fit(data_root, tmp_path / "run", options, kill)
    killing.fit(data_root, tmp_path / "run", options)
    resumed = killing.last_checkpoint(tmp_path / "run")
    for part in ("epoch", "global_step", "state_dict", "optimizer_states"):
        torch.testing.assert_close(resumed[part], whole[part], rtol=0, atol=0, equal_nan=True)


class Middle(Callback):
    """Saves the run in the middle of epoch 2, and notes which parts are trained in the first step of each epoch."""

    def __init__(self, file: Path) -> None:
        self.file, self.trained = file, {}  # type: ignore[var-annotated]

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        names = [name for name, parameter in pl_module.model.named_parameters() if parameter.requires_grad]  # type: ignore[union-attr]
        norms = [name for name, module in pl_module.model.named_modules() if "norm" in name and module.training]  # type: ignore[union-attr]
        self.trained.setdefault(trainer.current_epoch, (parts(names), parts(norms)))

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == 2 * STEPS + 2 and not self.file.exists():
            trainer.save_checkpoint(self.file)


def test_goes_on_in_the_middle_of_an_epoch(data_root: Path, tmp_path: Path) -> None:
    """An epoch that is not started again; which images it still has to see is another matter."""
    whole, resumed = Middle(tmp_path / "middle.ckpt"), Middle(tmp_path / "middle.ckpt")
    train(data_root, GradualUnfreezing(), whole, epochs=5)
    assert whole.trained == {0: ("h", ""), 1: ("h2", "2"), 2: ("h21", "21"), 3: ("h210", "210"), 4: ("h210s", "210")}
    train(data_root, GradualUnfreezing(), resumed, epochs=5, fit={"ckpt_path": whole.file, "weights_only": True})
    assert resumed.trained == {epoch: whole.trained[epoch] for epoch in (2, 3, 4)}


class Agreement(Callback):
    """All processes have the same weights."""

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        flat = torch.cat([parameter.detach().flatten() for parameter in pl_module.parameters()])
        gathered: Tensor = pl_module.all_gather(flat)  # type: ignore[assignment]
        assert torch.equal(gathered[0], gathered[1])


def test_processes_agree(data_root: Path) -> None:
    """Gradients of what is unfrozen are exchanged as well."""
    train(data_root, GradualUnfreezing(), Agreement(), trainer={"devices": 2, "strategy": "ddp_fork"})


# -- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["every_n_epochs", "blocks_at_once"])
def test_bad_arguments(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} must be at least 1, got 0"):
        GradualUnfreezing(**{name: 0})


def test_bad_runs(data_root: Path) -> None:
    with pytest.warns(UserWarning, match="the stem's turn is epoch 4, the last one is epoch 3"):
        train(data_root, GradualUnfreezing(), epochs=4, trainer={"limit_train_batches": 1, "limit_val_batches": 0})
    stand_in: Any = type("TrainerOfFSDP", (), {"strategy": FSDPStrategy()})()
    with pytest.raises(InputError, match="FSDPStrategy"):
        GradualUnfreezing().setup(stand_in, ClassificationModule(), "fit")
    pytest.importorskip("timm", reason="comes with the extra [baselines]")
    with pytest.raises(InputError, match="for WaveMix only, this model is a ResNet"):
        GradualUnfreezing().setup(stand_in, ClassificationModule("resnet18"), "fit")
