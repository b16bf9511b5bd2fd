"""WaveMix among the models of timm: registered, built, taken apart, trained as timm's training script does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from wavemix_pl import WaveMixClassifier, WaveMixConfig, create_model
from wavemix_pl.errors import InputError
from wavemix_pl.models.published_weights import PUBLISHED
from wavemix_pl.models.variants import IMAGES, VARIANTS
from wavemix_pl.paper.catalog import load_tables
from wavemix_pl.paper.rows import Row

timm: Any = pytest.importorskip("timm")

from timm.data import Mixup, create_dataset, create_loader, resolve_data_config  # noqa: E402
from timm.loss import SoftTargetCrossEntropy  # noqa: E402
from timm.models import resume_checkpoint  # noqa: E402
from timm.optim import create_optimizer_v2  # noqa: E402
from timm.scheduler import create_scheduler_v2  # noqa: E402
from timm.utils import CheckpointSaver, ModelEmaV3, NativeScaler, accuracy  # noqa: E402

ROOT = Path(__file__).parents[2]
SMALL = "wavemix_lite_16_7"


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)


# --- registration


# Before timm: it is not imported, a look for it changes nothing, and two hooks, one after the other, do no harm.
BEFORE = """import wavemix_pl, importlib.util
assert not {'timm', 'torch'} & set(sys.modules)
assert importlib.util.find_spec('timm').name == 'timm'
del sys.modules['wavemix_pl']
import wavemix_pl, timm.models"""


@pytest.mark.parametrize("imports", ["import timm, wavemix_pl", BEFORE])
def test_registered_in_whatever_order(imports: str) -> None:
    done = python("-W", "error::UserWarning", "-c", f"import sys\n{imports}\nprint(*timm.list_models('wavemix*'))")
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == set(VARIANTS)


def test_timm_goes_on_where_wavemix_cannot() -> None:
    broken = "import sys, wavemix_pl; sys.modules['wavemix_pl.models.wavemix'] = None"
    done = python("-c", f"{broken}; import timm; print(len(timm.list_models()))")
    assert int(done.stdout) > 1000
    assert "the models of wavemix_pl are not among those of timm" in done.stderr


def table_rows() -> list[Row]:
    """What the tables train for classification; without Tables 13 and 14, whose models differ in what no name tells."""
    rows = [row for table in load_tables().values() for row in table.rows if row.table in range(1, 13)]
    return [row for row in rows if row.model and "wavemix" in row.model.lower() and row.task == "classification"]


def config_of(row: Row) -> WaveMixConfig:
    assert row.model
    assert row.data
    overrides = {**row.overrides, "head_dim": None, "in_channels": row.data.channels}
    return WaveMixConfig.from_notation(row.model, **overrides)


def test_every_model_of_the_tables_has_a_name() -> None:
    named = {variant.config.notation for variant in VARIANTS.values()}
    assert len(table_rows()) > 50
    assert {config_of(row).notation for row in table_rows()} <= named


def test_every_variant_is_in_a_table_or_published() -> None:
    known = {config_of(row) for row in table_rows()} | {entry.config for entry in PUBLISHED.values()}
    known = {config.replace(dropout=0.5) for config in known}  # which is told by no table, and no part of the model
    assert [variant.name for variant in VARIANTS.values() if variant.config not in known] == []


def test_every_published_classifier_has_a_name() -> None:
    named = [weights.name for variant in VARIANTS.values() for weights in variant.weights.values()]
    assert sorted(named) == sorted(name for name, entry in PUBLISHED.items() if entry.task == "classification")
    assert len(timm.list_models("wavemix*", pretrained=True)) == len(named)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant(name: str) -> None:
    variant = VARIANTS[name]
    with torch.device("meta"):
        model = timm.create_model(name)
        ours = create_model(variant.config, model.num_classes)
    assert {key: x.shape for key, x in model.state_dict().items()} == {k: x.shape for k, x in ours.state_dict().items()}
    cfg = model.default_cfg
    assert model.num_classes == cfg["num_classes"] == IMAGES[variant.data].num_classes
    assert cfg["input_size"][0] == len(cfg["mean"]) == len(cfg["std"]) == model.in_chans == variant.config.in_channels
    assert model.get_submodule(cfg["classifier"]) is model.get_classifier()
    assert model.get_submodule(cfg["first_conv"]).in_channels == model.in_chans
    assert model.num_features == variant.config.dim
    images = torch.empty(2, *cfg["input_size"], device="meta")
    features = model.eval().forward_features(images)
    reduction = model.feature_info[-1]["reduction"]
    assert features.shape == (2, model.num_features, *(side // reduction for side in cfg["input_size"][1:]))
    assert model(images).shape == (2, model.num_classes)


# --- parts


def small(name: str = SMALL, **arguments: Any) -> Any:
    return timm.create_model(name, **arguments)


def test_arguments() -> None:
    model = small(num_classes=5, in_chans=1, dropout=0.25, head_dim=6, drop_rate=0.5, dtype=torch.float64)
    assert isinstance(model, WaveMixClassifier)
    assert {module.p for module in model.modules() if isinstance(module, nn.Dropout)} == {0.25}
    images = torch.randn(2, 1, 16, 16, dtype=torch.float64)
    assert model(images).shape == (2, 5)
    assert model.forward_head(model.forward_features(images), pre_logits=True).shape == (2, 6)
    with pytest.raises(InputError, match="'drop_path_rate' is no field"):
        small(drop_path_rate=0.1)


def test_the_same_numbers_as_ours() -> None:
    model = small().eval()
    ours = create_model(model.config, 10).eval()
    ours.load_state_dict(model.state_dict())
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model(images), ours(images))


@pytest.mark.parametrize(("pool", "width"), [("avg", 16), ("max", 16), ("avgmax", 16), ("catavgmax", 32)])
def test_head(pool: str, width: int) -> None:
    images = torch.randn(2, 3, 16, 16)
    model = small(global_pool=pool).eval()
    assert model.head_hidden_size == width
    assert model(images).shape == (2, 10)
    before = model.forward_head(model.forward_features(images), pre_logits=True)
    assert before.shape == (2, width)
    torch.testing.assert_close(model.get_classifier()(before), model(images))
    model.reset_classifier(4)
    assert (model.num_classes, model(images).shape) == (4, (2, 4))
    model.reset_classifier(0)
    torch.testing.assert_close(model(images), before)
    with pytest.raises(InputError, match="global_pool=''"):
        model.reset_classifier(4, "")
    model.reset_classifier(0, "")
    torch.testing.assert_close(model(images), model.forward_features(images))
    model.reset_classifier(3, pool)
    assert model(images).shape == (2, 3)
    assert small(num_classes=0, global_pool="")(images).shape == (2, 16, 16, 16)


def test_features_only() -> None:
    images = torch.randn(2, 1, 32, 32)
    model = small(in_chans=1, features_only=True)
    assert [x.shape for x in model(images)] == [(2, 16, 32, 32)] * 3  # of the last three blocks
    for chosen, blocks in (((0, 3), 4), ((-7, -2), 6), (2, 7)):
        model = small("wavemix_lite_192_16", depth=7, features_only=True, out_indices=chosen).eval()
        maps = model(torch.randn(1, 3, 32, 32))
        assert [x.shape for x in maps] == [(1, 192, 8, 8)] * 2
        assert (model.feature_info.channels(), model.feature_info.reduction()) == ([192, 192], [4, 4])
        assert len(model.model.blocks) == blocks


def test_intermediates_as_timm_asks_for_them() -> None:
    model = small().eval()
    images = torch.randn(1, 3, 16, 16)
    every = WaveMixClassifier.forward_intermediates(model, images)
    last, maps = model.forward_intermediates(images)
    torch.testing.assert_close([*maps, last], [*every, every[-1]])
    last, maps = model.forward_intermediates(images, [1, 3])
    torch.testing.assert_close([*maps, last], [every[1], every[3], every[6]])
    last, maps = model.forward_intermediates(images, [1, 3], stop_early=True)
    torch.testing.assert_close([*maps, last], [every[1], every[3], every[3]])
    torch.testing.assert_close(model.forward_intermediates(images, 2, intermediates_only=True), every[-2:])
    with pytest.raises(InputError, match="NCHW"):
        model.forward_intermediates(images, output_fmt="NLC")
    assert model.prune_intermediate_layers([0, -5], prune_head=False) == [0, 2]
    torch.testing.assert_close(model.forward_features(images), every[2])
    assert (len(model.blocks), model.config.depth, model.training) == (3, 3, False)


def test_checkpointing_changes_no_gradient() -> None:
    model, gradients = small(dropout=0.0).double(), []
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        assert model.execution == ("checkpointed" if enable else "plain")
        model.zero_grad()
        model(images).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    torch.testing.assert_close(*gradients)


def test_learning_rates_from_layer_to_layer() -> None:
    model = small()
    optimizer = create_optimizer_v2(model, "adamw", lr=0.1, weight_decay=0.05, layer_decay=0.5)
    rate = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert rate[id(model.head.linear.weight)] == 1
    assert rate[id(model.blocks[-1].reduce.weight)] == 0.5
    assert rate[id(model.blocks[0].reduce.weight)] == 0.5**7
    assert rate[id(model.stem[1].weight)] == 0.5**8
    assert decay[id(model.blocks[0].paths[0].norm.weight)] == 0 < decay[id(model.blocks[0].reduce.weight)]


# --- weights


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WaveMixClassifier:
    """A model whose weights lie where those published for wavemix_lite_144_7 are looked for."""
    monkeypatch.setenv("WAVEMIX_PL_WEIGHTS", str(tmp_path))
    entry = PUBLISHED["cifar10/wavemix-lite-144-7"]
    (tmp_path / entry.file).parent.mkdir()
    model = WaveMixClassifier(entry.config, 10)
    torch.save(model.state_dict(), tmp_path / entry.file)
    return model


def test_pretrained(published: WaveMixClassifier) -> None:
    for name in ("wavemix_lite_144_7", "wavemix_lite_144_7.cifar10"):
        model = small(name, pretrained=True)
        torch.testing.assert_close(model.state_dict(), published.state_dict())
        assert model.default_cfg["tag"] == "cifar10"
    with pytest.raises(RuntimeError, match="No pretrained weights exist"):
        small(pretrained=True)


def test_pretrained_for_other_classes_and_channels(published: WaveMixClassifier) -> None:
    model = small("wavemix_lite_144_7", pretrained=True, num_classes=4, in_chans=1)
    torch.testing.assert_close(model.blocks.state_dict(), published.blocks.state_dict())
    assert model.head.linear.out_features == 4
    torch.testing.assert_close(model.stem[0].weight, published.stem[0].weight.sum(1, keepdim=True))  # timm's rule
    features = small("wavemix_lite_144_7", pretrained=True, features_only=True, out_indices=(3,)).eval()
    images = torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(features(images), published.eval().forward_intermediates(images, [3]))


def test_pretrained_from_a_file(published: WaveMixClassifier, tmp_path: Path) -> None:
    """Of a run of ours, whose names have a prefix."""
    state = {f"model.{name}": tensor for name, tensor in published.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "run.ckpt")
    overlay = {"file": str(tmp_path / "run.ckpt")}
    model = small("wavemix_lite_144_7", pretrained=True, pretrained_cfg_overlay=overlay)
    torch.testing.assert_close(model.state_dict(), published.state_dict())


def test_weights_that_do_not_fit(published: WaveMixClassifier) -> None:
    with pytest.raises(InputError, match=r"head\.mix"):
        small("wavemix_lite_144_7", pretrained=True, head_dim=8)


def test_timms_own_folders(tmp_path: Path) -> None:
    hub = pytest.importorskip("timm.models._hub")
    pytest.importorskip("huggingface_hub")
    arguments = {"num_classes": 4, "in_chans": 1, "head_dim": 6}
    model = small(**arguments)
    hub.save_for_hf(model, tmp_path, model_args=arguments, safe_serialization=True)
    loaded = small(f"local-dir:{tmp_path}", pretrained=True)
    torch.testing.assert_close(loaded.state_dict(), model.state_dict())


def test_our_own_folders(tmp_path: Path) -> None:
    """What timm built is saved as any WaveMixClassifier, and comes back as either."""
    pytest.importorskip("huggingface_hub")
    model = small(num_classes=4, in_chans=1)
    model.save_pretrained(tmp_path)
    for kind in (WaveMixClassifier, type(model)):
        torch.testing.assert_close(kind.from_pretrained(tmp_path).state_dict(), model.state_dict())


# --- training


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Red images and blue ones, in the folders that timm's training script takes."""
    for split in ("train", "validation"):
        for color in ((200, 30, 30), (30, 30, 200)):
            place = tmp_path / "data" / split / f"class_{color[0]}"
            place.mkdir(parents=True)
            for number in range(4):
                Image.new("RGB", (20, 20), color).save(place / f"{number}.png")
    return tmp_path / "data"


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_training_with_the_pieces_of_timms_script(folder: Path, tmp_path: Path) -> None:
    """In the order of train.py, which is in no package: two epochs with all that it offers, and a resume."""
    device = torch.device("cpu")
    model = small(num_classes=2, pretrained=False, drop_rate=0.0)
    model.set_grad_checkpointing(enable=True)
    config = resolve_data_config({"img_size": 16}, model=model)
    assert (config["input_size"], config["mean"]) == ((3, 16, 16), IMAGES["cifar10"].mean)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=0.01, weight_decay=0.05, layer_decay=0.9)
    scaler, average = NativeScaler(device="cpu"), ModelEmaV3(model, decay=0.5)
    loaders = {}
    for split, training in (("train", True), ("validation", False)):
        loaders[split] = create_loader(
            create_dataset("", root=str(folder), split=split, is_training=training),
            input_size=config["input_size"],
            batch_size=4,
            is_training=training,
            mean=config["mean"],
            std=config["std"],
            interpolation=config["interpolation"],
            auto_augment="rand-m9-mstd0.5" if training else None,
            re_prob=0.25 if training else 0.0,
            num_workers=0,
            persistent_workers=False,
            device=device,
        )
    mixup = Mixup(mixup_alpha=0.2, cutmix_alpha=1.0, num_classes=2, label_smoothing=0.1)
    scheduler, epochs = create_scheduler_v2(optimizer, "cosine", num_epochs=2, warmup_epochs=1, updates_per_epoch=2)
    saver = CheckpointSaver(
        model=model, optimizer=optimizer, model_ema=average, amp_scaler=scaler,
        checkpoint_dir=str(tmp_path), recovery_dir=str(tmp_path), max_history=2,
    )  # fmt: skip
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for epoch in range(epochs):
        model.train()
        for step, (images, classes) in enumerate(loaders["train"]):
            images, soft = mixup(images, classes)
            with torch.autocast("cpu", torch.bfloat16):
                loss = SoftTargetCrossEntropy()(model(images), soft)
            scaler(loss, optimizer, clip_grad=1.0, clip_mode="agc", parameters=list(model.parameters()))
            optimizer.zero_grad()
            average.update(model, step=step)
            assert loss.isfinite()
        scheduler.step(epoch + 1)
        average.module.eval()
        with torch.no_grad():
            images, classes = next(iter(loaders["validation"]))
            top1 = accuracy(average.module(images), classes, topk=(1,))[0]
        saver.save_checkpoint(epoch, metric=float(top1))
    assert all((a != b).any() for a, b in zip(before, model.parameters(), strict=True))
    again = small(num_classes=2)
    assert (
        resume_checkpoint(again, str(tmp_path / "last.pth.tar"), create_optimizer_v2(again, "adamw", layer_decay=0.9))
        == 2
    )
    torch.testing.assert_close(again.state_dict(), model.state_dict())


SCRIPT = os.environ.get("TIMM_TRAIN_SCRIPT", "")


@pytest.mark.skipif(not SCRIPT, reason="timm's train.py is in no package: clone timm, and set TIMM_TRAIN_SCRIPT to it")
def test_timms_training_script(folder: Path, tmp_path: Path) -> None:
    start = "import runpy, sys, wavemix_pl; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
    options = "--num-classes 2 --device cpu --workers 0 --batch-size 4 --epochs 2 --img-size 16 --opt adamw --lr 0.01"
    options += f" --warmup-epochs 0 --mixup 0.2 --cutmix 1.0 --model-ema --grad-checkpointing --output {tmp_path}"
    done = python("-c", start, SCRIPT, str(folder), "--model", SMALL, *options.split(), "--experiment", "run")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "last.pth.tar").is_file()
