"""Image files in tar archives: the same images, each once, in the same order as from files."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import webdataset
from PIL import Image

from wavemix_pl.data import ImageFolderData, ShardData
from wavemix_pl.data.generated import write_dataset
from wavemix_pl.errors import InputError

Run = Callable[..., int]
SMALL = ("--data.image_size=[8,8]", "--data.batch_size=4", "--trainer.max_epochs=1", "--model.variant=WaveMix-Lite-8/1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes of JPEG and PNG files of several sizes, 24 to train, 6 to test."""
    generator = torch.Generator().manual_seed(0)
    for split, count in (("train", 8), ("test", 2)):
        for label, name in enumerate(("bag", "boot", "coat")):
            (tmp_path / "files" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = torch.randint(0, 256, (9 + label, 10 + number, 3), generator=generator, dtype=torch.uint8)
                suffix = "JPEG" if number % 2 else "png"
                Image.fromarray(pixels.numpy()).save(tmp_path / "files" / split / name / f"{number}.{suffix}")
    return tmp_path / "files"


@pytest.fixture
def shards(run: Run, folder: Path) -> Path:
    """The same in archives of a kilobyte or more."""
    arguments = ("--root", folder, "--output", "shards", "--shard_mb=0.001")
    assert run("datasets", "shard", "ImageFolderData", *arguments) == 0
    return Path("shards").resolve()


def prepared(kind: Any, root: Path, world: int = 1, rank: int = 0, **arguments: Any) -> Any:
    data = kind(root=str(root), batch_size=2, image_size=(8, 8), **arguments)
    loop = SimpleNamespace(is_resuming=False)
    data.trainer = SimpleNamespace(world_size=world, global_rank=rank, training=True, fit_loop=loop)
    data.setup("fit")
    data.setup("test")
    return data


def test_the_same_images_as_from_files(folder: Path, shards: Path) -> None:
    assert len(list(shards.glob("train-*.tar"))) > 3
    files, packed = ImageFolderData(root=str(folder)), ShardData(root=str(shards))
    assert list(packed.class_names) == list(files.class_names)
    for split in ("train", "test"):
        one, other = files.load(split), packed.load(split)  # type: ignore[arg-type]
        assert len(one) == len(other)
        for (image, target), (again, same) in zip(map(one.__getitem__, range(len(one))), other, strict=True):  # type: ignore
            assert torch.equal(image, again)
            assert target == same


def test_webdataset_reads_them(folder: Path, shards: Path) -> None:
    """The archives are in its format: each file's own bytes, with its class."""
    urls = [str(path) for path in sorted(shards.glob("train-*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False))
    assert [s["__key__"] for s in samples] != sorted(
        s["__key__"] for s in samples
    )  # training images lie in random order
    files = ImageFolderData(root=str(folder)).load("train")
    assert len(samples) == len(files)
    for sample in samples:
        number = int(sample["__key__"])
        assert (sample.get("png") or sample["jpeg"]) == Path(files.paths[number]).read_bytes()
        assert int(sample["cls"]) == files.targets[number]


def test_a_run_from_archives_is_that_from_files(run: Run, folder: Path, shards: Path) -> None:
    rows = []
    for kind, root in (("ImageFolderData", folder), ("ShardData", shards)):
        place = f"--trainer.default_root_dir=runs/{kind}"
        options = (*SMALL, "--data.num_workers=2", "--data.augment=trivial")
        assert run("fit", f"--data={kind}", f"--data.root={root}", place, *options) == 0
        rows.append(list(csv.DictReader(Path(f"runs/{kind}/metrics.csv").read_text().splitlines())))
    for one, other in zip(*rows, strict=True):
        same = [name for name in one if name.endswith(("loss", "acc1"))]
        assert {name: one[name] for name in same} == {name: other[name] for name in same}


@pytest.mark.parametrize("world", [1, 2, 3])
def test_shard_by_shard_each_image_is_seen_once(shards: Path, world: int) -> None:
    """On however many devices, but for the rest that does not divide; and in another order in each epoch."""
    orders = []
    for epoch in range(2):
        shares = []
        for rank in range(world):
            data = prepared(ShardData, shards, world, rank, order="shards", val_fraction=0.1)
            data.batch_size = world
            loader = data.train_dataloader()
            loader.sampler.set_epoch(epoch)
            shares.append(loader.sampler.order())
        seen = [number for share in shares for number in share]
        assert len(set(seen)) == len(seen) == 22 // world * world
        assert len({len(share) for share in shares}) == 1
        orders.append(seen)
    assert orders[0] != orders[1]


def test_shard_by_shard_few_archives_are_open_at_a_time(shards: Path) -> None:
    data = prepared(ShardData, shards, order="shards")
    sampler = data.train_dataloader().sampler
    archives = sampler.blocks[sampler.order()].tolist()
    last = {archive: place for place, archive in enumerate(archives)}
    for place, archive in enumerate(archives):
        begun = {other for other in archives[: place + 1] if last[other] >= place}
        assert len(begun) <= sampler.at_once, archive


def test_generated_images_stay_marked(run: Run, tmp_path: Path) -> None:
    write_dataset("TinyImageNet", tmp_path / "data")
    assert run("datasets", "shard", "TinyImageNet", "--root", tmp_path / "data", "--output", "packed") == 0
    with pytest.warns(UserWarning, match="GENERATED IMAGES, not TinyImageNet"):
        prepared(ShardData, Path("packed"))


def test_bad_input(run: Run, folder: Path, shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*arguments: Any) -> str:
        assert run(*arguments) == 2
        return capsys.readouterr().err.splitlines()[-1]

    shard = ("datasets", "shard", "ImageFolderData", "--root", folder, "--output", shards)
    assert "is not empty: pass another --output" in said(*shard)
    assert "'CIFAR10' has no image files to pack; there are INaturalist, ImageFolderData, " in said(
        "datasets", "shard", "CIFAR10"
    )
    assert "--shard_mb must be above 0, got -1" in said(*shard, "--shard_mb=-1")
    first = next(shards.glob("train-*.tar"))
    first.write_bytes(first.read_bytes()[:-1])
    fit = ("fit", "--data=ShardData", f"--data.root={shards}", *SMALL)
    assert f"{first}: not there, or not the " in said(*fit)
    first.unlink()
    assert "copy it again" in said(*fit)
    (shards / "train.npy").write_bytes(b"")
    (shards / "shards.json").unlink()
    assert "'wavemix-pl datasets shard NAME' writes archives and index" in said(*fit)


def test_no_test_images(shards: Path, tmp_path: Path) -> None:
    text = (shards / "shards.json").read_text().replace('"test"', '"val"')
    (shards / "shards.json").write_text(text)
    (shards / "test.npy").rename(shards / "val.npy")
    data = ShardData(root=str(shards))
    assert [len(part) for part in data.divide()] == [24, 6]  # type: ignore[arg-type]
    with pytest.raises(InputError, match="has no test images; it has train, val"):
        data.load("test")
