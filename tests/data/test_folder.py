"""Folders of classes: anyone's own, ImageNet, iNaturalist, Places365 and Tiny ImageNet in their layouts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import Tensor
from torchvision import datasets
from torchvision.transforms.v2 import functional as TF

from wavemix_pl.data import ImageFolderData, ImageNet, INaturalist, Places365, TinyImageNet
from wavemix_pl.data.published import PublishedFolders
from wavemix_pl.errors import InputError

Run = Callable[..., int]


def write_image(path: Path, number: int, size: tuple[int, int] = (24, 20)) -> None:
    """An image of one color, which tells its number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((*size, 3), [number % 256, number // 256, 7], dtype=np.uint8)
    Image.fromarray(pixels).save(path, quality=95)


def write_classes(folder: Path, classes: Sequence[str], count: int, suffix: str = ".png") -> None:
    for label, name in enumerate(classes):
        for number in range(count):
            write_image(folder / name / f"{number}{suffix}", 10 * label + number, (20 + number, 24 + label % 5))


def few_classes(monkeypatch: pytest.MonkeyPatch, kind: type[PublishedFolders], count: int) -> None:
    monkeypatch.setattr(kind, "about", replace(kind.about, classes=count))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder of three classes with 8 training images each, and others for validation and test."""
    for split, count in (("train", 8), ("val", 3), ("test", 2)):
        write_classes(tmp_path / split, ["cat", "dog", "owl"], count)
    return tmp_path


def number_of(image: Tensor) -> int:
    return int(image[0].float().mean().round())


def test_equals_torchvision(own: Path) -> None:
    data = ImageFolderData(root=str(own), image_size=(16, 16))
    theirs = datasets.ImageFolder(str(own / "train"))
    ours = data.load("train")
    assert list(data.class_names) == theirs.classes
    assert list(zip(ours.paths, ours.targets.tolist(), strict=True)) == theirs.samples
    assert torch.equal(ours[5][0], TF.pil_to_tensor(theirs[5][0]))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches(own: Path, num_workers: int) -> None:
    data = ImageFolderData(root=str(own), image_size=(16, 12), batch_size=4, num_workers=num_workers)
    data.setup("fit")
    data.setup("test")
    for loader, count in ((data.train_dataloader(), 24), (data.val_dataloader(), 9), (data.test_dataloader(), 6)):
        batches = list(loader)
        assert sum(len(targets) for _, targets in batches) == count
        for images, targets in batches:
            assert images.shape[1:] == (3, 16, 12)
            assert images.dtype == torch.uint8
            assert targets.dtype == torch.int64
            assert [number_of(image) // 10 for image in images] == targets.tolist()


def test_spawned_workers(own: Path) -> None:
    data = ImageFolderData(root=str(own), image_size=(16, 16), batch_size=4, augment="trivial", num_workers=1)
    data.setup("fit")
    loader = data.train_dataloader()
    loader.multiprocessing_context = "spawn"
    assert sum(len(targets) for _, targets in loader) == 24


def test_without_val_a_part_of_train_is_kept(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", ["a", "b"], 10)
    data = ImageFolderData(root=str(tmp_path), image_size=(8, 8), val_fraction=0.2)
    data.setup("fit")
    assert [len(data.train_set), len(data.val_set)] == [16, 4]  # type: ignore[arg-type]
    assert not set(data.train_set.indices) & set(data.val_set.indices)  # type: ignore[union-attr]
    with pytest.raises(InputError, match="no folder 'test'"):
        data.setup("test")


def test_validation_on_test_images(own: Path) -> None:
    data = ImageFolderData(root=str(own), validate_on_test=True)
    data.setup("fit")
    assert len(data.train_set) == 24  # type: ignore[arg-type]
    assert data.val_set.paths == data.load("test").paths  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("resize", "box"),
    [("squash", (0, 0, 60, 40)), ("center-crop", (10, 0, 40, 40)), ("random-crop", (10, 0, 40, 40))],
)
def test_resize(tmp_path: Path, resize: Any, box: tuple[int, int, int, int]) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "train" / "a").mkdir(parents=True)
    smooth = np.kron(rng.integers(0, 255, (4, 6, 3)), np.ones((10, 10, 1))).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "train" / "a" / "wide.png")
    data = ImageFolderData(root=str(tmp_path), image_size=(40, 40), resize=resize)
    image, _ = data.load("train")[0]
    seen = data.transform(training=False)(image)
    left, top, width, height = box
    expected = TF.resize(TF.crop(image, top, left, height, width), [40, 40], antialias=True)
    assert torch.equal(seen, expected)
    training = data.transform(training=True)(image)
    assert training.shape == (3, 40, 40)
    assert torch.equal(training, seen) == (resize != "random-crop")


def test_grey_and_transparent_images_are_read(tmp_path: Path) -> None:
    for mode in ("L", "RGBA", "P", "CMYK"):
        path = tmp_path / "train" / "a" / f"{mode}.{'jpg' if mode == 'CMYK' else 'png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, (5, 4)).save(path)
    files = ImageFolderData(root=str(tmp_path)).load("train")
    assert [files[i][0].shape for i in range(4)] == [(3, 4, 5)] * 4


def test_sixteen_bits_are_brought_to_eight_as_in_predictions(tmp_path: Path) -> None:
    (tmp_path / "train" / "a").mkdir(parents=True)
    Image.fromarray(np.full((4, 5), 200 * 257, dtype=np.uint16)).save(tmp_path / "train" / "a" / "0.png")
    assert ImageFolderData(root=str(tmp_path)).load("train")[0][0].unique().tolist() == [200]


def test_bad_folders(tmp_path: Path, own: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        ImageFolderData(root=str(tmp_path / "nowhere"))
    (tmp_path / "empty" / "train" / "a").mkdir(parents=True)
    with pytest.raises(InputError, match="no image files"):
        ImageFolderData(root=str(tmp_path / "empty")).setup("fit")
    write_image(own / "val" / "wolf" / "0.png", 0)
    with pytest.raises(InputError, match=r"val/wolf: the training images have no such class"):
        ImageFolderData(root=str(own)).setup("fit")
    broken = own / "train" / "cat" / "0.png"
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(InputError, match=r"train/cat/0.png: cannot be read"):
        ImageFolderData(root=str(own)).load("train")[0]


def test_from_the_command_line(own: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--data=ImageFolderData", f"--data.root={own}", "--data.image_size=[16,16]", "--data.batch_size=6")
    model = ("--model.variant=WaveMix-Lite-4/1", "--trainer.max_epochs=1", "--trainer.default_root_dir=run")
    assert run("fit", *options, "--data.augment=trivial", "--data.resize=random-crop", *model) == 0
    assert run("test", *options, "--ckpt_path=run/checkpoints/best.ckpt") == 0
    capsys.readouterr()
    assert run("predict", "--ckpt_path=run/checkpoints/best.ckpt", str(own / "test" / "owl")) == 0
    assert "owl" in capsys.readouterr().out
    (own / "train" / "dog" / "3.png").write_bytes(b"no image")
    assert run("fit", *options, "--data.num_workers=1", *model[:2]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("wavemix-pl: error:")
    assert "train/dog/3.png" in error


# -- published data sets in their own layouts ------------------------------------------------------------------------

LAYOUTS: list[tuple[type[PublishedFolders], str, str]] = [
    (ImageNet, "train", "val"),
    (ImageNet, "imagenet/train", "imagenet/val"),
    (INaturalist, "2021_train_mini", "2021_valid"),
    (INaturalist, "train_mini", "val"),
    (Places365, "places365_standard/train", "places365_standard/val"),
]


@pytest.mark.parametrize(("kind", "train", "test"), LAYOUTS)
def test_published_layouts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[PublishedFolders], train: str, test: str
) -> None:
    few_classes(monkeypatch, kind, 3)
    write_classes(tmp_path / train, ["n01", "n02", "n03"], 10, ".JPEG")
    write_classes(tmp_path / test, ["n01", "n02", "n03"], 2, ".JPEG")
    data = kind(root=str(tmp_path), batch_size=3, image_size=(16, 16))
    data.setup("fit")
    data.setup("test")
    assert [len(part) for part in (data.train_set, data.val_set, data.test_set)] == [27, 3, 6]  # type: ignore[arg-type]
    assert data.found() == tmp_path / train
    assert next(iter(data.train_dataloader()))[0].shape == (3, 3, 16, 16)


def test_imagenet_as_kaggle_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few_classes(monkeypatch, ImageNet, 3)
    wnids = ["n01", "n02", "n03"]
    folder = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    write_classes(folder / "train", wnids, 10, ".JPEG")
    lines = ["ImageId,PredictionString"]
    for number, label in enumerate((2, 0, 1, 2)):
        name = f"ILSVRC2012_val_{number:08}"
        write_image(folder / "val" / f"{name}.JPEG", 50 * label, (16, 16))
        lines.append(f"{name},{wnids[label]} 1 2 3 4 {wnids[label]} 5 6 7 8 ")
    listed = tmp_path / "LOC_val_solution.csv"
    listed.write_text("\n".join(lines) + "\n")
    files = ImageNet(root=str(tmp_path)).load("test")
    assert [round(number_of(image) / 50) for image, _ in map(files.__getitem__, range(4))] == files.targets.tolist()
    assert files.targets.tolist() == [2, 0, 1, 2]
    listed.write_text("ImageId,PredictionString\nILSVRC2012_val_00000000\n")
    with pytest.raises(InputError, match=r"LOC_val_solution.csv: line 1 is damaged"):
        ImageNet(root=str(tmp_path)).load("test")
    listed.unlink()
    with pytest.raises(InputError, match=r"LOC_val_solution.csv: cannot be read"):
        ImageNet(root=str(tmp_path)).load("test")


@pytest.mark.parametrize("size", ["256", "large"])
def test_places365_as_torchvision_unpacks_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: str) -> None:
    few_classes(monkeypatch, Places365, 3)
    monkeypatch.setattr("torchvision.datasets.places365.check_integrity", lambda *_, **__: True)  # of the real lists
    categories = ["/a/alley", "/b/bow_window/indoor", "/z/zen_garden"]
    train, val = [], []
    for label, category in enumerate(categories):
        for number in range(10):
            name = f"{category}/{number:08}.jpg"
            write_image(tmp_path / f"data_{size}_standard" / name[1:], 50 * label, (16, 16))
            train.append(f"{name} {label}\n")
        write_image(tmp_path / f"val_{size}" / f"Places365_val_{label:08}.jpg", 50 * label, (16, 16))
        val.insert(0, f"Places365_val_{label:08}.jpg {label}\n")
    (tmp_path / "places365_train_standard.txt").write_text("".join(train))
    (tmp_path / "places365_val.txt").write_text("".join(val))
    (tmp_path / "categories_places365.txt").write_text("".join(f"{c} {n}\n" for n, c in enumerate(categories)))
    data = Places365(root=str(tmp_path))
    assert data.class_names == ["alley", "bow_window-indoor", "zen_garden"]
    for split, theirs in (("train", "train-standard"), ("test", "val")):
        ours = data.load(split)  # type: ignore[arg-type]
        oracle = torchvision.datasets.Places365(str(tmp_path), theirs, small=size == "256")
        assert list(zip(ours.paths, ours.targets.tolist(), strict=True)) == oracle.imgs


def test_sizes_of_the_paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, size in ((ImageNet, 224), (INaturalist, 224), (Places365, 256), (TinyImageNet, 64)):
        few_classes(monkeypatch, kind, 1)
        for names in kind.folders.values():
            (tmp_path / names[0] / "a").mkdir(parents=True, exist_ok=True)
        assert kind(root=str(tmp_path)).image_size == (size, size)


@pytest.mark.parametrize("kind", [ImageNet, INaturalist, Places365, TinyImageNet])
def test_missing_and_partial_sets(tmp_path: Path, kind: type[PublishedFolders]) -> None:
    with pytest.raises(InputError, match=rf"no {kind.__name__} in .*get"):
        kind(root=str(tmp_path))
    for split in ("train", "test"):
        write_classes(tmp_path / kind.folders[split][0], ["a", "b"], 1)  # type: ignore[index]
    with pytest.raises(InputError, match=f"2 class folders instead of {kind.about.classes}.*ImageFolderData"):
        kind(root=str(tmp_path))


def write_tiny_imagenet(root: Path) -> list[str]:
    """Three classes in the layout of tiny-imagenet-200.zip; returns them in the order of wnids.txt."""
    wnids = ["n03", "n01", "n02"]
    folder = root / "tiny-imagenet-200"
    for label, wnid in enumerate(wnids):
        for number in range(10):
            write_image(folder / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", 50 * label, (64, 64))
    lines = []
    for number, wnid in enumerate(["n02", "n03", "n01", "n03"]):
        write_image(folder / "val" / "images" / f"val_{number}.JPEG", 50 * wnids.index(wnid), (64, 64))
        lines.append(f"val_{number}.JPEG\t{wnid}\t0\t0\t62\t62\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    (folder / "wnids.txt").write_text("\n".join(wnids))
    return wnids


@pytest.mark.parametrize("order", ["sorted", "wnids"])
def test_tiny_imagenet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: Any) -> None:
    few_classes(monkeypatch, TinyImageNet, 3)
    wnids = write_tiny_imagenet(tmp_path)
    data = TinyImageNet(root=str(tmp_path), class_order=order)
    assert data.class_names == (wnids if order == "wnids" else sorted(wnids))
    for split, count in (("train", 30), ("test", 4)):
        files = data.load(split)  # type: ignore[arg-type]
        assert len(files) == count
        for image, target in (files[i] for i in range(count)):
            assert round(number_of(image) / 50) == wnids.index(data.class_names[target])


def test_tiny_imagenet_bad_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few_classes(monkeypatch, TinyImageNet, 3)
    write_tiny_imagenet(tmp_path)
    annotations = tmp_path / "tiny-imagenet-200" / "val" / "val_annotations.txt"
    annotations.write_text("val_9.JPEG\tn01\n")
    with pytest.raises(InputError, match=r"val_annotations.txt: no such class or image"):
        TinyImageNet(root=str(tmp_path)).load("test")
    annotations.unlink()
    with pytest.raises(InputError, match=r"val_annotations.txt: cannot be read"):
        TinyImageNet(root=str(tmp_path)).load("test")
    (tmp_path / "tiny-imagenet-200" / "wnids.txt").write_text("n01\nn09\nn02\n")
    with pytest.raises(InputError, match=r"wnids.txt and the folders"):
        TinyImageNet(root=str(tmp_path), class_order="wnids")
