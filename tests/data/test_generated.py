"""Generated data sets: each is found by its module, none passes for real data, and real data is verified as ever."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from wavemix_pl import data
from wavemix_pl.data.generated import write_dataset
from wavemix_pl.data.manifest import find_manifest
from wavemix_pl.data.mnist import EMNISTVariant
from wavemix_pl.errors import InputError

MARK = "generated-images.json"
NAMES = [name for name in data.__all__ if getattr(getattr(data, name), "about", None)]
SMALL = {"Cityscapes": {"image_size": (32, 64)}}


def made(name: str, root: Path, **options: Any) -> data.ImageDataModule:
    kind: Any = getattr(data, name)
    module: data.ImageDataModule = kind(root=str(root), batch_size=2, **SMALL.get(name, {}), **options)
    return module


@pytest.mark.parametrize("name", NAMES)
def test_each_data_set_trains_validates_and_tests(tmp_path: Path, name: str) -> None:
    pytest.importorskip({"SVHN": "scipy", "Galaxy10": "h5py"}.get(name, "torch"))
    write_dataset(name, tmp_path / "new")
    module = made(name, tmp_path / "new")
    assert module.about is not None
    assert module.num_classes == (47 if name == "EMNIST" else module.about.classes)
    with pytest.warns(UserWarning, match=f"GENERATED IMAGES, not {name}.*{MARK}"):
        module.setup("fit")
    module.setup("test")
    for loader in (module.train_dataloader(), module.val_dataloader(), module.test_dataloader()):
        images, targets = next(iter(loader))
        assert images.dtype == torch.uint8
        assert len(images) == len(targets) <= 2
    assert len(next(iter(module.train_dataloader()))[0]) == 2
    assert module.generated is not None
    assert (module.generated.dataset, module.generated.seed) == (name, 0)

    other = made(name, tmp_path / "new", validate_on_test=True)
    other.setup("fit")
    sizes = [len(part) for part in (module.train_set, module.val_set, module.test_set)]  # type: ignore[arg-type]
    assert [len(other.train_set), len(other.val_set)] == [sizes[0] + sizes[1], sizes[2]]  # type: ignore[arg-type]


@pytest.mark.parametrize("variant", get_args(EMNISTVariant))
def test_all_variants_of_emnist(tmp_path: Path, variant: EMNISTVariant) -> None:
    write_dataset("EMNIST", tmp_path, images=130)
    module = data.EMNIST(variant=variant, root=str(tmp_path))
    assert module.load("test").targets.unique().tolist() == list(range(module.num_classes))


@pytest.mark.parametrize("name", ["CIFAR10", "TinyImageNet", "Cityscapes"])
def test_the_seed_makes_the_images(tmp_path: Path, name: str) -> None:
    files = []
    for number, seed in enumerate((0, 0, 1)):
        root = tmp_path / str(number)
        write_dataset(name, root, images=6, seed=seed)
        contents = {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        files.append({path: content for path, content in contents.items() if path.name != MARK})
    assert files[0] == files[1]
    assert files[0] != files[2]


def test_nothing_is_mixed_with_other_files(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").touch()
    for root in (tmp_path, tmp_path / "photo.jpg"):
        with pytest.raises(InputError, match="not an empty folder"):
            write_dataset("MNIST", root)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"name": "Cifar-10"}, "no generated images for 'Cifar-10': did you mean CIFAR10"),
        ({"name": "xyz"}, "'xyz': There are MNIST, "),
        ({"images": 5}, "6 images or more.* got 5 and 0"),
        ({"seed": -1}, "got 10 and -1"),
    ],
)
def test_bad_input(tmp_path: Path, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        write_dataset(**{"name": "MNIST", "root": tmp_path / "new", **arguments})
    assert not (tmp_path / "new").exists()


def test_the_mark_is_found_wherever_the_data_is_named_from(tmp_path: Path, data_root: Path) -> None:
    write_dataset("MNIST", tmp_path / "smoke")
    for root in (tmp_path / "smoke", tmp_path / "smoke" / "MNIST" / "raw"):
        assert made("MNIST", root).generated is not None
    (tmp_path / "link").symlink_to(tmp_path / "smoke" / "MNIST" / "raw")
    assert made("MNIST", tmp_path / "link").generated is not None
    assert made("FashionMNIST", data_root).generated is None
    mark = tmp_path / "smoke" / MARK
    assert find_manifest(tmp_path / "smoke" / "MNIST")[0] == mark  # type: ignore[index]
    assert "No score on them means anything" in json.loads(mark.read_text())["statement"]
    mark.write_text("[]")
    with pytest.raises(InputError, match=f"{MARK}: cannot be read .*remove it"):
        made("MNIST", tmp_path / "smoke").setup("fit")


class _Code:
    """Runs when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100"])
def test_the_mark_lets_no_other_pickle_in(tmp_path: Path, name: str) -> None:
    root, escaped = tmp_path / "root", tmp_path / "escaped"
    write_dataset(name, root)
    module: Any = made(name, root)
    published = module.published
    for file in (published.train_list[0][0], published.test_list[0][0], published.meta["filename"]):
        path = root / published.base_folder / file
        whole = path.read_bytes()
        path.write_bytes(pickle.dumps(_Code(escaped)))
        with pytest.raises(InputError, match="wrong checksum"):
            module.load("train")
        path.write_bytes(whole)
    assert len(module.load("train")) == 10
    assert not escaped.exists()


@pytest.mark.parametrize("how", ["no mark", "mark of another"])
def test_without_its_mark_a_generated_cifar_is_refused(tmp_path: Path, how: str) -> None:
    write_dataset("CIFAR10", tmp_path)
    mark = tmp_path / MARK
    mark.unlink() if how == "no mark" else mark.write_text(mark.read_text().replace("CIFAR10", "MNIST"))
    with pytest.raises(InputError, match="wrong checksum"):
        made("CIFAR10", tmp_path).load("train")


def test_another_process_reads_them_and_says_what_they_are(tmp_path: Path) -> None:
    write_dataset("CIFAR100", tmp_path / "smoke")
    command = [sys.executable, "-m", "wavemix_pl", "fit", "--data=CIFAR100", f"--data.root={tmp_path / 'smoke'}"]
    options = ["--data.batch_size=2", "--model.variant=WaveMix-Lite-4/1", "--trainer.fast_dev_run=1"]
    done = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "GENERATED IMAGES, not CIFAR100" in done.stderr


@pytest.mark.parametrize("name", ["SVHN", "Galaxy10"])
def test_what_must_be_installed_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    with pytest.raises(InputError, match="pip install"):
        write_dataset(name, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_validation_on_test_images_is_said(
    tmp_path: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    write_dataset("MNIST", tmp_path / "smoke")
    options = ("--data=MNIST", f"--data.root={tmp_path / 'smoke'}", "--data.batch_size=2", "--trainer.fast_dev_run=1")
    with caplog.at_level("INFO"):
        assert run("fit", *options, "--data.validate_on_test=true", "--model.variant=WaveMix-Lite-4/1") == 0
    assert "validation on the test images, for comparison only" in caplog.text + capsys.readouterr().err
