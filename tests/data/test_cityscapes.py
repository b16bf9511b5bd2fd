"""Cityscapes on a small tree in the real layout, its scores against the official evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import CITYSCAPES_SIZE as SIZE
from tests.conftest import write_cityscapes
from wavemix_pl.data import Cityscapes
from wavemix_pl.errors import InputError

OFFICIAL = "official evaluation: comes with the extra [test]"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_cityscapes(tmp_path / "tree")
    return tmp_path / "tree"


def loaded(root: Path, **arguments: Any) -> Cityscapes:
    data = Cityscapes(str(root), **{"image_size": SIZE, "batch_size": 2, "val_fraction": 0.34, **arguments})
    data.setup("fit")
    data.setup("test")
    return data


def test_facts() -> None:
    data = Cityscapes()
    assert data.num_classes == len(data.colors or ()) == len(data.label_ids or ()) == 19
    assert data.class_names[0] == "road"
    assert data.class_names[-1] == "bicycle"
    assert list(data.label_ids or ()) == [7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33]
    with_void = Cityscapes(void_as_class=True)
    assert with_void.num_classes == 20
    assert with_void.class_names[:2] == ["void", "road"]
    assert with_void.void_index == 0


@pytest.mark.parametrize("void_as_class", [False, True])
def test_label_ids_become_classes(root: Path, void_as_class: bool) -> None:
    from cityscapesscripts.helpers.labels import id2label

    data = loaded(root, void_as_class=void_as_class)
    images, masks = next(iter(data.test_dataloader()))
    assert images.shape == (2, 3, *SIZE)
    assert images.dtype == torch.uint8
    files = sorted((root / "gtFine" / "val").rglob("*labelIds.png"))[:2]
    for mask, file in zip(masks, files, strict=True):
        ids = np.asarray(Image.open(file))
        official = np.vectorize(lambda i: id2label[i].trainId)(ids)
        official = np.where(np.isin(official, (255, -1)), 255, official)
        expected = np.where(official == 255, 0, official + 1) if void_as_class else official
        assert np.array_equal(mask.numpy(), expected)


def test_sizes_and_crops(root: Path) -> None:
    data = loaded(root, image_size=(16, 32), crop_size=(12, 40))
    images, masks = next(iter(data.train_dataloader()))
    assert images.shape == (2, 3, 12, 40)
    assert masks.shape == (2, 12, 40)
    assert (masks == 255).any()  # the crop is wider than the image
    images, masks = next(iter(data.val_dataloader()))
    assert images.shape == (2, 3, 16, 32)
    assert masks.shape == (2, *SIZE)  # scores are those at full resolution


def test_image_and_mask_are_cropped_together(root: Path) -> None:
    """The color of a pixel of these images tells its label id."""
    data = loaded(root, crop_size=(16, 16), augment="flip")
    for images, masks in data.train_dataloader():
        ids = (images[:, 0].long() / 7).round().long()
        expected = data._class_of_id()[ids]
        assert torch.equal(masks, expected)


def test_crops_change_with_the_epoch_but_not_with_workers(root: Path) -> None:
    def epoch(number: int, **arguments: Any) -> list[torch.Tensor]:
        loader = loaded(root, crop_size=(8, 8), **arguments).train_dataloader()
        loader.sampler.set_epoch(number)  # type: ignore[attr-defined]  # as the trainer does
        return [part for batch in loader for part in batch]

    first = epoch(0)
    for workers in (1, 2):
        assert all(map(torch.equal, first, epoch(0, num_workers=workers)))
    assert len(first) == len(epoch(1)) == 4
    assert not all(map(torch.equal, first, epoch(1)))


def test_split_leaves_the_official_validation_alone(root: Path) -> None:
    data = loaded(root)
    train, val = data.train_set, data.val_set
    assert sorted([*train.indices, *val.indices]) == list(range(6))  # type: ignore[union-attr]
    assert len(data.test_set) == 3  # type: ignore[arg-type]


def test_bad_trees(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gtFine_trainvaltest"):
        loaded(tmp_path / "nowhere")
    mask = next((root / "gtFine" / "val").rglob("*labelIds.png"))
    good = mask.read_bytes()
    Image.fromarray(np.full(SIZE, 77, dtype=np.uint8)).save(mask)
    with pytest.raises(InputError, match=rf"{mask.name}: label id 77"):
        list(loaded(root).test_dataloader())
    Image.fromarray(np.full((8, 8), 7, dtype=np.uint8)).save(mask)
    with pytest.raises(InputError, match=mask.name):
        list(loaded(root).test_dataloader())
    mask.write_bytes(good[:40])
    with pytest.raises(InputError, match=rf"{mask.name}: cannot be read"):
        list(loaded(root).test_dataloader())
    mask.unlink()
    with pytest.raises(InputError, match="no such file"):
        loaded(root)
    with pytest.raises(InputError, match="crop_size"):
        Cityscapes(crop_size=(0, 4))


@pytest.mark.parametrize("void_as_class", ["false", "true"])
@pytest.mark.parametrize("size", ["[32,64]", "[16,32]"])
def test_scores_are_those_of_the_official_evaluation(
    root: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str], void_as_class: str, size: str
) -> None:
    """Train, test, write predictions by the command line; then Cityscapes' own script judges the written files."""
    official = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling", reason=OFFICIAL)
    data = ("--data=Cityscapes", f"--data.root={root}", f"--data.image_size={size}", "--data.batch_size=2")
    model = ("--model=SegmentationModule", "--model.variant=WaveMix-16/1 (level 2)", "--model.optimizer.lr=0.02")
    options = ("--data.val_fraction=0.34", "--trainer.max_epochs=15", "--trainer.default_root_dir=run")
    assert run("fit", *data, f"--data.void_as_class={void_as_class}", *model, *options) == 0
    checkpoint = "--ckpt_path=run/checkpoints/last.ckpt"
    capsys.readouterr()
    assert run("test", *data, f"--data.void_as_class={void_as_class}", checkpoint) == 0
    shown = next(line for line in capsys.readouterr().out.splitlines() if "test_miou" in line).split()
    assert run("predict", root / "leftImg8bit" / "val", checkpoint, "--output=masks", "--json") == 0
    rows = json.loads(capsys.readouterr().out)

    truth = sorted((root / "gtFine" / "val").rglob("*labelIds.png"))
    pairs = [(row["mask"], str(file)) for row, file in zip(rows, truth, strict=True)]
    assert [Path(row["file"]).stem.rsplit("_", 1)[0] for row in rows] == [f.stem.rsplit("_", 2)[0] for f in truth]
    arguments = official.args
    arguments.evalPixelAccuracy, arguments.evalInstLevelScore, arguments.JSONOutput = False, False, False
    arguments.quiet = True
    result = official.evaluateImgLists(*map(list, zip(*pairs, strict=True)), arguments)
    assert float(shown[2]) == pytest.approx(result["averageScoreClasses"], abs=6e-5)  # four printed digits
    assert float(shown[2]) > 0.05


def test_matrix_against_the_official_one_exactly() -> None:
    """IoU of each class and their mean to 1e-6, on random masks with absent classes and void."""
    official: Any = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling", reason=OFFICIAL)
    from wavemix_pl.scores import SegmentationScores

    data = Cityscapes()
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 19, (3, 40, 50), generator=generator)
    target[target == 16] = 5  # no train in the truth
    predicted = torch.where(torch.rand(target.shape, generator=generator) < 0.7, target, (target * 7 + 3) % 19)
    predicted[predicted == 13] = 2  # no truck predicted
    target[torch.rand(target.shape, generator=generator) < 0.1] = 255
    metric = SegmentationScores(19)
    metric.update(predicted, target)

    ids = torch.tensor(data.label_ids)
    true_ids = torch.where(target == 255, 0, ids[target.clamp_max(18)])
    confusion = np.zeros((34, 34), dtype=np.ulonglong)
    np.add.at(confusion, (true_ids.numpy().ravel(), ids[predicted].numpy().ravel()), 1)
    arguments = official.args
    arguments.evalLabels = list(range(34))
    scores = {
        name: official.getIouScoreForLabel(i, confusion, arguments)
        for name, i in zip(data.class_names, ids.tolist(), strict=True)
    }
    ours = metric.scores()
    assert ours["iou"].tolist() == pytest.approx(list(scores.values()), abs=1e-6, nan_ok=True)
    assert float(ours["miou"]) == pytest.approx(np.nanmean(list(scores.values())), abs=1e-6)
