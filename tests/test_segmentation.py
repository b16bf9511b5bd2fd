"""The segmentation module, on FashionScenes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.transforms.v2 import functional as TF

from wavemix_pl.callbacks import MaskPicture
from wavemix_pl.data import FashionScenes
from wavemix_pl.data.tensor_images import TensorImages
from wavemix_pl.errors import InputError
from wavemix_pl.modules import ClassificationModule, SegmentationModule
from wavemix_pl.pictures import paint

SMALL = {"scenes": 24, "val_scenes": 8, "test_scenes": 10}


def trainer(**arguments: Any) -> L.Trainer:
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return L.Trainer(**{**quiet, "accelerator": "cpu", "enable_checkpointing": False, **arguments})


def module(**arguments: Any) -> SegmentationModule:
    torch.manual_seed(0)
    return SegmentationModule(**{"variant": "WaveMix-8/1 (level 2)", "num_classes": 11, "in_channels": 1, **arguments})


def by_definition(predicted: torch.Tensor, target: torch.Tensor, classes: int) -> list[float]:
    kept = target != 255
    found = []
    for number in range(classes):
        mine, true = (predicted == number) & kept, (target == number) & kept
        union = int((mine | true).sum())
        found.append(int((mine & true).sum()) / union if union else math.nan)
    return found


def test_scores_are_those_of_all_pixels() -> None:
    """10 scenes in batches of 4, 4 and 2."""
    model, data = module(), FashionScenes(**SMALL, batch_size=4)
    (result,) = trainer().test(model, datamodule=data, verbose=False)
    scenes = data.test_set
    with torch.no_grad():
        logits = model.eval()(data.normalize(scenes.images))  # type: ignore[union-attr]
    targets = scenes.targets  # type: ignore[union-attr]
    expected = by_definition(logits.argmax(1), targets, 11)
    assert model.class_iou is not None
    assert model.class_iou.tolist() == pytest.approx(expected, nan_ok=True)
    valid = [value for value in expected if not math.isnan(value)]
    assert result["test_miou"] == pytest.approx(sum(valid) / len(valid))
    right = (logits.argmax(1) == targets)[targets != 255]
    assert result["test_pixel_accuracy"] == pytest.approx(float(right.float().mean()))
    weighted = float(F.cross_entropy(logits, targets, ignore_index=255))  # of all pixels that are not void
    assert result["test_loss"] == pytest.approx(weighted, rel=1e-5)


def test_masks_larger_than_the_images() -> None:
    """Scores at full resolution: the logits grow to the masks' size."""
    model = module()
    images, masks = torch.randn(2, 1, 16, 16), torch.randint(0, 11, (2, 32, 32))
    assert model._logits("val", images, masks).shape == (2, 11, 32, 32)


def test_published_score_beside_the_mean_iou() -> None:
    (plain,) = trainer().test(module(), datamodule=FashionScenes(**SMALL), verbose=False)
    (both,) = trainer().test(module(published_score=True), datamodule=FashionScenes(**SMALL), verbose=False)
    assert "test_published_score" not in plain
    assert both["test_miou"] == plain["test_miou"]
    assert both["test_published_score"] != both["test_miou"]


def test_learns() -> None:
    model = module(variant="WaveMix-16/2 (level 2)", optimizer=lambda params: torch.optim.AdamW(params, lr=0.01))
    run = trainer(max_epochs=20)
    data = FashionScenes(scenes=8, val_scenes=1, test_scenes=1, batch_size=8)
    run.fit(model, datamodule=data)
    scenes = data.train_set
    assert isinstance(scenes, TensorImages)
    with torch.no_grad():
        right = model(data.normalize(scenes.images)).argmax(1) == scenes.targets
    assert float(right[scenes.targets != 255].float().mean()) > 0.8


def test_backbone_of_a_classifier(tmp_path: Path) -> None:
    classifier = ClassificationModule("WaveMix-8/1 (level 2)", in_channels=1, overrides={"stride": 2})
    torch.save({"state_dict": classifier.state_dict()}, tmp_path / "classifier.ckpt")
    model = module(backbone=str(tmp_path / "classifier.ckpt"), optimizer=lambda params: torch.optim.SGD(params, lr=0.0))
    trainer(max_epochs=1, limit_val_batches=0).fit(model, datamodule=FashionScenes(**SMALL))
    assert torch.equal(model.model.stem[0].weight, classifier.model.stem[0].weight)
    assert "backbone" not in model.hparams
    with pytest.raises(InputError, match=r"nowhere\.ckpt"):
        trainer(max_epochs=1).fit(module(backbone="nowhere.ckpt"), datamodule=FashionScenes(**SMALL))


def test_void_as_a_class_is_trained_and_not_scored() -> None:
    """Where void is class 0, as in the published code; elsewhere it counts in neither."""
    logits, masks = torch.randn(2, 11, 8, 8), torch.randint(0, 11, (2, 8, 8))
    published = module(void_index=0)
    torch.testing.assert_close(published.loss(logits, masks), F.cross_entropy(logits, masks))
    (published.evaluations["val_masks"][0]).update(logits, masks)
    expected = by_definition(logits.argmax(1), torch.where(masks == 0, 255, masks), 11)
    assert published.evaluations["val_masks"][0].scores()["iou"].tolist()[1:] == pytest.approx(expected[1:])
    void = torch.where(masks == 0, 255, masks)
    torch.testing.assert_close(module().loss(logits, void), F.cross_entropy(logits, void, ignore_index=255))


def test_by_the_command_line(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    scenes = ("--data=FashionScenes", "--data.scenes=24", "--data.val_scenes=8", "--data.test_scenes=8")
    options = ("--model=SegmentationModule", "--model.variant=WaveMix-8/1 (level 2)", "--trainer.max_epochs=2")
    callbacks = ("--trainer.callbacks+=FocalLossCallback", "--trainer.default_root_dir=run", "--data.batch_size=8")
    assert run("fit", *scenes, *options, *callbacks) == 0
    best = "--ckpt_path=run/checkpoints/best.ckpt"
    assert torch.load("run/checkpoints/best.ckpt", weights_only=True)["preprocessing"]["colors"][0] == [0, 0, 0]
    assert run("test", *scenes, "--trainer.default_root_dir=run", "--ckpt_path=best") == 2
    assert "pass --model=wavemix_pl.modules.SegmentationModule" in capsys.readouterr().err
    assert run("test", *scenes, best, "--model=ClassificationModule") == 2
    more = ("--model.test_time.flip=true", "--model.test_time.scales=[0.5,1]", "--model.test_time.window=[48,48]")
    assert run("test", *scenes, best, *more) == 0
    assert "test_miou" in capsys.readouterr().out


def test_predicted_masks(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    """PNG masks and overlays of the files' own size, and what the model says of these very pixels."""
    scenes = ("--data=FashionScenes", "--data.scenes=24", "--data.val_scenes=8", "--data.test_scenes=8")
    options = ("--model=SegmentationModule", "--model.variant=WaveMix-8/1 (level 2)", "--trainer.max_epochs=1")
    assert run("fit", *scenes, *options, "--trainer.default_root_dir=run", "--data.batch_size=8") == 0
    data = FashionScenes(**SMALL)
    image = data.load("test").images[0]
    Path("images/deep").mkdir(parents=True)
    Image.fromarray(image[0].numpy()).save("images/small.png")
    Image.fromarray(image[0].numpy()).resize((90, 70)).save("images/large.png")
    capsys.readouterr()
    last = "--ckpt_path=run/checkpoints/last.ckpt"
    assert run("predict", "images", last, "--output=masks", "--json") == 0
    large, small = json.loads(capsys.readouterr().out)
    assert Path(large["file"]).name == "large.png"
    assert sum(large["classes"].values()) == pytest.approx(1, abs=1e-4)
    for row, size in ((large, (90, 70)), (small, (64, 64))):
        for kind in ("mask", "overlay"):
            with Image.open(row[kind]) as picture:
                assert picture.size == size
    model = SegmentationModule.load_from_checkpoint("run/checkpoints/last.ckpt", weights_only=True).eval()
    with torch.no_grad():
        expected = model(data.normalize(image[None])).argmax(1)[0]
    with Image.open(small["mask"]) as picture:
        assert torch.equal(TF.pil_to_tensor(picture)[0].long(), expected)
    before = Path("images/small.png").read_bytes()
    assert run("predict", "images/small.png", last, "--output=images") == 2
    assert "images/small.png would be overwritten" in capsys.readouterr().err
    assert Path("images/small.png").read_bytes() == before
    Image.fromarray(image[0].numpy()).save("images/deep/small.png")
    assert run("predict", "images", last) == 2
    assert "2 images are named 'small'" in capsys.readouterr().err
    assert run("predict", last, *scenes) == 2
    assert "name files or folders" in capsys.readouterr().err


def test_picture_after_a_test(tmp_path: Path) -> None:
    data = FashionScenes(**SMALL)
    trainer(callbacks=[MaskPicture(columns=4)], default_root_dir=tmp_path).test(
        module(), datamodule=data, verbose=False
    )
    with Image.open(tmp_path / "predictions.png") as picture:
        assert picture.size == (4 * 66 + 2, 3 * 66 + 2)


def test_paint() -> None:
    painted = paint(torch.tensor([[0, 1], [255, 1]]), [[0, 0, 0], [9, 8, 7]])
    assert painted[:, 0, 1].tolist() == [9, 8, 7]
    assert painted[:, 1, 0].tolist() == [255, 255, 255]


def test_convmixer_by_name() -> None:
    pytest.importorskip("timm", reason="comes with the extra [baselines]")
    with pytest.raises(InputError, match="backbone is for WaveMix only"):
        module(variant="ConvMixer-8/1", backbone="weights.pth")
    model = module(variant="ConvMixer-8/1")
    assert model(torch.randn(1, 1, 16, 16)).shape == (1, 11, 16, 16)
