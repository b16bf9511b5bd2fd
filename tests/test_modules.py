"""The LightningModule in Python, without the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F

from wavemix_pl.data import EmbeddedFashionMNIST, FashionMNIST
from wavemix_pl.errors import InputError
from wavemix_pl.modules import ClassificationModule, SegmentationModule


def trainer(**arguments: Any) -> L.Trainer:
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return L.Trainer(**{**quiet, "accelerator": "cpu", "enable_checkpointing": False, **arguments})


def test_metrics_are_those_of_all_images(data_root: Path) -> None:
    """Against torch.topk and cross-entropy over all test images at once; batches of 12 and 8."""
    module = ClassificationModule("WaveMix-Lite-4/1", in_channels=1).eval()
    data = FashionMNIST(root=str(data_root), batch_size=12)
    (result,) = trainer().test(module, datamodule=data, verbose=False)
    images = data.load("test")
    with torch.no_grad():
        logits = module(data.normalize(images.images))
    ranked = logits.topk(5).indices == images.targets[:, None]
    assert result["test_acc1"] == pytest.approx(float(ranked[:, 0].float().mean()))
    assert result["test_acc5"] == pytest.approx(float(ranked.any(1).float().mean()))
    assert result["test_loss"] == pytest.approx(float(F.cross_entropy(logits, images.targets)), rel=1e-5)


def test_fewer_than_five_classes() -> None:
    module = ClassificationModule("WaveMix-Lite-4/1", num_classes=2)
    module.validation_step((torch.randn(3, 3, 8, 8), torch.tensor([0, 1, 1])), 0)
    values = module.scores["val_scores"].compute()
    assert values["val_acc5"] == 1


def test_label_smoothing() -> None:
    module = ClassificationModule("WaveMix-Lite-4/1", label_smoothing=0.2)
    logits, targets = torch.randn(4, 10), torch.arange(4)
    torch.testing.assert_close(module.loss(logits, targets), F.cross_entropy(logits, targets, label_smoothing=0.2))


def test_the_papers_optimizer() -> None:
    optimizer = ClassificationModule().configure_optimizers()
    assert isinstance(optimizer, torch.optim.AdamW)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (1e-3, (0.9, 0.999), 1e-8, 0.01)


def test_plateau_scheduler_is_driven_by_its_monitor(data_root: Path) -> None:
    from lightning.pytorch.cli import ReduceLROnPlateau

    module = ClassificationModule(
        "WaveMix-Lite-4/1",
        in_channels=1,
        lr_scheduler=lambda optimizer: ReduceLROnPlateau(optimizer, monitor="val_loss", patience=0, threshold=10.0),
    )
    run = trainer(max_epochs=3)
    run.fit(module, datamodule=FashionMNIST(root=str(data_root), batch_size=30))
    assert run.optimizers[0].param_groups[0]["lr"] < 1e-3


def test_learns(data_root: Path) -> None:
    """Sixty images are learned by heart: gradients, loss, normalisation and labels belong together."""
    L.seed_everything(0)
    module = ClassificationModule(
        "WaveMix-16/2 (level 2)",
        in_channels=1,
        overrides={"dropout": 0.0},
        optimizer=lambda params: torch.optim.AdamW(params, lr=0.01),
    )
    run = trainer(max_epochs=60)
    run.fit(module, datamodule=FashionMNIST(root=str(data_root), batch_size=20, val_fraction=0.25))
    assert run.callback_metrics["train_acc1"] >= 0.9


def test_validate_before_fit(data_root: Path) -> None:
    """As in a notebook: what inference mode leaves behind must not be in training's way."""
    module, data = ClassificationModule("WaveMix-Lite-4/1", in_channels=1), FashionMNIST(root=str(data_root))
    run = trainer(max_epochs=1)
    run.validate(module, datamodule=data, verbose=False)
    run.fit(module, datamodule=data)
    run.test(module, datamodule=data, verbose=False)


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_true_precisions(data_root: Path, precision: Any) -> None:
    module = ClassificationModule("WaveMix-Lite-4/1", in_channels=1)
    run = trainer(max_epochs=1, precision=precision)
    run.fit(module, datamodule=FashionMNIST(root=str(data_root), batch_size=30))
    assert run.callback_metrics["train_loss"].isfinite()


def test_round_trip_of_a_checkpoint(data_root: Path, tmp_path: Path) -> None:
    module = ClassificationModule("WaveMix-Lite-4/1", in_channels=1, overrides={"dropout": 0.1})
    run = trainer(max_epochs=1)
    run.fit(module, datamodule=FashionMNIST(root=str(data_root), batch_size=20))
    run.save_checkpoint(tmp_path / "model.ckpt")
    loaded = ClassificationModule.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    assert loaded.model.config == module.model.config
    assert loaded.preprocessing == EmbeddedFashionMNIST().preprocessing
    torch.testing.assert_close(loaded.state_dict(), module.state_dict())


def test_probabilities() -> None:
    module = ClassificationModule("WaveMix-Lite-4/1").eval()
    with torch.no_grad():
        probabilities = module.predict_step((torch.randn(3, 3, 9, 9), torch.zeros(3)), 0)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(3))


def test_bad_model_is_refused() -> None:
    with pytest.raises(InputError, match="in_channels is told by the data"):
        ClassificationModule(overrides={"in_channels": 3})
    with pytest.raises(InputError, match="nope"):
        ClassificationModule(overrides={"nope": 1})


def fit(module: L.LightningModule, data_root: Path, **arguments: Any) -> L.Trainer:
    one = trainer(max_epochs=1, num_sanity_val_steps=0, **arguments)
    L.seed_everything(0)
    one.fit(module, datamodule=FashionMNIST(root=str(data_root), batch_size=16))
    return one


@pytest.mark.parametrize("execution", ["plain", "fast", "lean", "checkpointed"])
def test_execution_reaches_the_model_and_changes_no_number(data_root: Path, execution: Any) -> None:
    arguments: dict[str, Any] = {"variant": "WaveMix-8/2 (level 2)", "in_channels": 1, "overrides": {"dropout": 0.0}}
    states = []
    for chosen in ("plain", execution):
        torch.manual_seed(0)
        module = ClassificationModule(**arguments, execution=chosen, optimizer=lambda p: torch.optim.SGD(p, lr=0.01))
        fit(module, data_root)
        assert module.model.execution == chosen
        states.append(module.model.state_dict())
    torch.testing.assert_close(states[1], states[0], rtol=1e-3, atol=1e-4)


def test_execution_is_chosen_by_the_device(data_root: Path) -> None:
    module = ClassificationModule("WaveMix-Lite-4/1", in_channels=1)
    fit(module, data_root)
    assert module.model.execution == "fast"
    compiled = ClassificationModule("WaveMix-Lite-4/1", in_channels=1, compile=True)
    with pytest.MonkeyPatch.context() as patch:
        calls: list[str] = []
        patch.setattr(torch.nn.Module, "compile", lambda self: calls.append(type(self).__name__))
        fit(compiled, data_root)
    assert compiled.model.execution == "plain"
    assert calls == ["WaveMixClassifier"]


def test_backbone(data_root: Path, tmp_path: Path) -> None:
    """Stem and blocks of a classifier of other classes, or of a segmenter; the head is new, and nothing is saved."""
    arguments: dict[str, Any] = {"variant": "WaveMix-8/1 (level 2)", "in_channels": 1, "overrides": {"stride": 2}}
    for source in (ClassificationModule(num_classes=3, **arguments), SegmentationModule(num_classes=4, **arguments)):
        torch.save({"state_dict": source.state_dict()}, tmp_path / "source.ckpt")
        module = ClassificationModule(
            **arguments, backbone=str(tmp_path / "source.ckpt"), optimizer=lambda p: torch.optim.SGD(p, lr=0.0)
        )
        head = module.model.head.linear.weight.clone()
        fit(module, data_root).save_checkpoint(tmp_path / "run.ckpt")
        taken = dict(source.model.named_parameters())
        for name, value in module.model.named_parameters():
            assert torch.equal(
                value, head if name == "head.linear.weight" else value if name.startswith("head.") else taken[name]
            ), name
    (tmp_path / "source.ckpt").unlink()
    saved = torch.load(tmp_path / "run.ckpt", weights_only=True)
    assert "backbone" not in saved["hyper_parameters"]
    trainer(max_epochs=2).fit(  # the file is gone, and not looked for
        module, datamodule=FashionMNIST(root=str(data_root), batch_size=16), ckpt_path=tmp_path / "run.ckpt"
    )
    fit(module, data_root)  # taken once: a second training goes on from where the first ended
    with pytest.raises(InputError, match=r"source\.ckpt: no such"):
        fit(ClassificationModule(**arguments, backbone=str(tmp_path / "source.ckpt")), data_root)


def test_weights(data_root: Path, tmp_path: Path) -> None:
    """The whole model, once: before training, validation, test or prediction, whichever comes first."""
    arguments: dict[str, Any] = {"variant": "WaveMix-Lite-4/1", "in_channels": 1}
    source, file = ClassificationModule(**arguments), str(tmp_path / "source.pth")
    torch.save(source.model.state_dict(), file)
    data = FashionMNIST(root=str(data_root), batch_size=20, val_fraction=0.25)
    first = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(3, 1, 28, 28)))
    quiet = {"datamodule": data, "verbose": False}
    for use in (
        lambda module: trainer().test(module, **quiet),
        lambda module: trainer().validate(module, **quiet),
        lambda module: trainer().predict(module, first),
        lambda module: fit(module, data_root),
    ):
        module = ClassificationModule(**arguments, weights=file, optimizer=lambda p: torch.optim.SGD(p, lr=0.0))
        use(module)
        for (name, ours), theirs in zip(module.model.named_parameters(), source.model.parameters(), strict=True):
            assert torch.equal(ours, theirs), name
    trained = ClassificationModule(**arguments, weights=file)
    fit(trained, data_root).save_checkpoint(tmp_path / "run.ckpt")
    after = trained.model.head.linear.weight.clone()
    trainer().test(trained, **quiet)
    assert torch.equal(trained.model.head.linear.weight, after)
    assert not {"weights", "backbone"} & {*torch.load(tmp_path / "run.ckpt", weights_only=True)["hyper_parameters"]}
    Path(file).unlink()
    other = ClassificationModule(**arguments, weights=file)  # whose file is gone, and not looked for
    trainer().test(other, ckpt_path=tmp_path / "run.ckpt", **quiet)
    assert torch.equal(other.model.head.linear.weight, after)


def test_bad_weights(data_root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"weights a\.pth and backbone b\.pth: give one"):
        ClassificationModule(weights="a.pth", backbone="b.pth")
    file = str(tmp_path / "source.pth")
    torch.save(ClassificationModule("WaveMix-Lite-4/1", 3, 1).model.state_dict(), file)
    with pytest.raises(InputError, match=r"head\.linear.*backbone in the place of weights"):
        fit(ClassificationModule("WaveMix-Lite-4/1", 10, 1, weights=file), data_root)


def test_what_a_peer_does_not_have_is_refused() -> None:
    pytest.importorskip("timm", reason="comes with the extra [baselines]")
    for arguments in ({"backbone": "weights.pth"}, {"freeze": "backbone"}, {"execution": "lean"}, {"fuse": True}):
        with pytest.raises(InputError, match=f"{next(iter(arguments))} is for WaveMix only, not for resnet18"):
            ClassificationModule("resnet18", **arguments)  # type: ignore[arg-type]  # one each


def test_fused_test_and_prediction(data_root: Path) -> None:
    """The same metrics and probabilities, by other means; nothing of it stays."""
    data = FashionMNIST(root=str(data_root), batch_size=12)
    results, probabilities = [], []
    for fuse in (False, True):
        torch.manual_seed(0)
        module = ClassificationModule("WaveMix-Lite-8/2", in_channels=1, fuse=fuse)
        keys = list(module.state_dict())
        seen: list[str] = []

        def note(part: torch.nn.Module, *_: Any, seen: list[str] = seen) -> None:
            seen.append(type(part).__name__)

        handle = torch.nn.modules.module.register_module_forward_hook(note)
        try:
            results.append(trainer().test(module, datamodule=data, verbose=False)[0])
        finally:
            handle.remove()
        assert ("FusedClassifier" in seen) == fuse
        assert list(module.state_dict()) == keys
        torch.manual_seed(1)
        images = torch.utils.data.TensorDataset(torch.randn(9, 1, 28, 28))
        batches = trainer().predict(module, torch.utils.data.DataLoader(images, batch_size=4))
        probabilities.append(torch.cat([torch.as_tensor(batch) for batch in batches or []]))
    assert results[1] == pytest.approx(results[0], abs=1e-6)
    torch.testing.assert_close(*probabilities)


def test_what_does_not_go_together() -> None:
    with pytest.raises(InputError, match="compile goes with plain"):
        ClassificationModule("WaveMix-Lite-4/1", compile=True, execution="lean")
