"""The verb `datasets`: what is here, and whether it is whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import write_cityscapes, write_fashion_mnist
from wavemix_pl import datasets
from wavemix_pl.data import FashionMNIST, TinyImageNet
from wavemix_pl.data.published import PublishedFolders

Run = Callable[..., int]


def test_all_data_sets_of_the_paper_are_listed(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("datasets", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert {entry["name"] for entry in listed} == {
        *("CIFAR10", "CIFAR100", "MNIST", "FashionMNIST", "EMNIST", "SVHN", "TinyImageNet", "ImageNet", "Places365"),
        *("INaturalist", "Galaxy10", "Cityscapes"),
    }
    for entry in listed:
        assert (entry["found"] is None) != (entry["missing"] is None)
        assert entry["train"] > entry["test"] > 0
    assert run("datasets") == 0
    table = capsys.readouterr().out
    assert all(entry["name"] in table for entry in listed)


def test_what_is_there_is_found(data_root: Path, tmp_path: Path) -> None:
    write_cityscapes(tmp_path)
    found = {entry.name: entry.found for entry in datasets.find_datasets(str(tmp_path))}
    assert found["Cityscapes"] == str(tmp_path)
    assert found["CIFAR10"] is None
    assert {e.name: e.found for e in datasets.find_datasets(str(data_root))}["FashionMNIST"] == str(
        data_root / "FashionMNIST" / "raw"
    )


def test_counts_of_classes_agree() -> None:
    for name, kind in datasets.KINDS.items():
        if issubclass(kind, PublishedFolders):  # theirs are counted when they are found
            continue
        expected = 47 if name == "EMNIST" else kind.about.classes  # type: ignore[union-attr]  # the default is balanced
        assert kind().num_classes == expected, name


def test_check_names_all_broken_files(tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    write_cityscapes(tmp_path)
    assert run("datasets", "check", "Cityscapes", f"--root={tmp_path}") == 0
    assert "9 images, all can be read" in capsys.readouterr().out
    broken = sorted(tmp_path.rglob("*_leftImg8bit.png"))[1::4]
    for path in broken:
        path.write_bytes(path.read_bytes()[:60])
    assert run("datasets", "check", "Cityscapes", f"--root={tmp_path}") == 2
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == len(broken) == 2
    assert all(str(path) in out for path in broken)
    assert err == "wavemix-pl: error: Cityscapes: 2 broken, 9 images opened\n"
    assert run("datasets", "check", "Cityscapes", f"--root={tmp_path}", "--json") == 2
    assert len(json.loads(capsys.readouterr().out)["broken"]) == 2


def test_check_of_a_set_in_one_file(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FashionMNIST, "debian_folder", tmp_path / "debian")
    write_fashion_mnist(tmp_path, train=20, test=10)
    assert run("datasets", "check", "FashionMNIST", f"--root={tmp_path}") == 0
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(b"\x00\x00\x08\x03")
    assert run("datasets", "check", "FashionMNIST", f"--root={tmp_path}") == 2
    assert "t10k-images-idx3-ubyte" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check"], "datasets check NAME"),
        (["check", "CIFAR"], "unknown data set 'CIFAR'; known are CIFAR10"),
        (["verify", "CIFAR10"], "datasets check NAME"),
        (["check", "CIFAR10"], "download=true"),
        (["check", "TinyImageNet"], str(TinyImageNet.about.how)),
    ],
)
def test_bad_input(run: Run, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    assert run("datasets", *arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said in error
