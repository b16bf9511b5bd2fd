"""Anyone's own images with masks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from wavemix_pl.data import MaskFolderData
from wavemix_pl.errors import InputError

CLASSES = ["floor", "cell", "rim"]


def write_pairs(root: Path, counts: dict[str, int]) -> None:
    """Images whose red channel is 80 times the class of each pixel; the last row is void."""
    rng = np.random.default_rng(0)
    for split, count in counts.items():
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True)
        for number in range(count):
            mask = np.kron(rng.integers(0, 3, (3, 4)), np.ones((8, 8))).astype(np.uint8)
            image = np.stack([80 * mask, mask, mask], axis=-1)
            mask[-1] = 255
            Image.fromarray(image).save(root / split / "images" / f"{number}.bmp")
            Image.fromarray(mask).save(root / split / "masks" / f"{number}.png")


def made(root: Path, **arguments: object) -> MaskFolderData:
    options = {"classes": CLASSES, "batch_size": 2, "image_size": (24, 32), "val_fraction": 0.25}
    return MaskFolderData(root=str(root), **{**options, **arguments})  # type: ignore[arg-type]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_images_and_masks_belong_together(tmp_path: Path, num_workers: int) -> None:
    write_pairs(tmp_path, {"train": 8, "val": 4, "test": 3})
    data = made(tmp_path, num_workers=num_workers, crop_size=(16, 16))
    data.setup("fit")
    data.setup("test")
    loaders = [(data.train_dataloader(), (16, 16), 8), (data.val_dataloader(), (24, 32), 4)]
    for loader, size, count in (*loaders, (data.test_dataloader(), (24, 32), 3)):
        seen = 0
        for images, masks in loader:
            assert images.shape[1:] == (3, *size)
            assert masks.shape[1:] == size
            assert masks.dtype == torch.int64
            inside = masks != 255
            assert torch.equal(images[:, 0].long()[inside], 80 * masks[inside])
            seen += len(images)
        assert seen == count


def test_a_part_of_train_is_kept_and_masks_of_validation_keep_their_size(tmp_path: Path) -> None:
    write_pairs(tmp_path, {"train": 8})
    data = made(tmp_path, image_size=(12, 16))
    data.setup("fit")
    assert [len(data.train_set), len(data.val_set)] == [6, 2]  # type: ignore[arg-type]
    assert next(iter(data.train_dataloader()))[1].shape == (2, 12, 16)
    images, masks = next(iter(data.val_dataloader()))
    assert images.shape == (2, 3, 12, 16)
    assert masks.shape == (2, 24, 32)
    with pytest.raises(InputError, match="no folder 'test'"):
        data.setup("test")
    with pytest.raises(InputError, match="no folder 'test'"):
        made(tmp_path, validate_on_test=True).setup("fit")


@pytest.mark.parametrize("split", ["val", "test"])
def test_validation_on_test_images(tmp_path: Path, split: str) -> None:
    write_pairs(tmp_path, {"train": 8, "test": 3} | {split: 3})
    data = made(tmp_path, validate_on_test=True, crop_size=(16, 16))
    data.setup("fit")
    assert len(data.train_set) == 8  # type: ignore[arg-type]
    assert data.val_set.images == data.load("test").images  # type: ignore[union-attr]
    assert next(iter(data.train_dataloader()))[0].shape == (2, 3, 16, 16)
    assert next(iter(data.val_dataloader()))[0].shape == (2, 3, 24, 32)


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="name the classes"):
        MaskFolderData(root=str(tmp_path))
    with pytest.raises(InputError, match="no image files"):
        made(tmp_path).setup("fit")
    write_pairs(tmp_path, {"train": 4})
    for classes, said in ((CLASSES[:2], "label id 2 is none of 0, 1, 255"),):
        data = made(tmp_path, classes=classes)
        data.setup("fit")
        with pytest.raises(InputError, match=said):
            [data.load("train")[i] for i in range(4)]
    mask = tmp_path / "train" / "masks" / "0.png"
    Image.new("RGB", (32, 24)).save(mask)
    with pytest.raises(InputError, match="one number of 8 bits"):
        made(tmp_path).load("train")[0]
    Image.new("L", (32, 20)).save(mask)
    with pytest.raises(InputError, match=r"0.png is \(20, 32\), its image"):
        made(tmp_path).load("train")[0]
    mask.unlink()
    with pytest.raises(InputError, match=r"masks/0.png: no such file"):
        made(tmp_path).setup("fit")


def test_from_the_command_line(tmp_path: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs(tmp_path / "own", {"train": 8, "test": 2})
    data = ("--data=MaskFolderData", f"--data.root={tmp_path / 'own'}", "--data.classes=[floor,cell,rim]")
    size = ("--data.image_size=[24,32]", "--data.batch_size=2", "--data.augment=flip")
    model = ("--model=SegmentationModule", "--model.variant=WaveMix-Lite-8/1", "--trainer.max_epochs=1")
    assert run("fit", *model, *data, *size, "--trainer.default_root_dir=run") == 0
    checkpoint = "--ckpt_path=run/checkpoints/best.ckpt"
    assert run("test", model[0], *data, *size, checkpoint, "--trainer.callbacks+=MaskPicture") == 0
    assert Path("run/predictions.png").is_file()
    capsys.readouterr()
    assert run("predict", checkpoint, str(tmp_path / "own" / "test" / "images" / "0.bmp"), "--json") == 0
    (written,) = json.loads(capsys.readouterr().out)
    assert set(written["classes"]) <= set(CLASSES)
    assert np.asarray(Image.open(written["mask"])).max() <= 2
    assert Path(written["overlay"]).is_file()
