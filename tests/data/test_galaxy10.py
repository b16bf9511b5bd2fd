"""Galaxy10 from an HDF5 file in the published form."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wavemix_pl.data import Galaxy10
from wavemix_pl.errors import InputError

h5py = pytest.importorskip("h5py")


def write_galaxies(path: Path, per_class: int = 20, **changes: Any) -> np.ndarray[Any, Any]:
    """Images of 8x8 that tell their number; classes of different size."""
    labels = np.repeat(np.arange(10, dtype=np.uint8), [per_class + 10 * (i % 2) for i in range(10)])
    numbers = np.arange(len(labels), dtype=np.uint8)
    images = np.broadcast_to(numbers[:, None, None, None], (len(labels), 8, 8, 3))
    with h5py.File(path, "w") as file:
        for key, value in ({"images": images, "ans": labels} | changes).items():
            if value is not None:
                file[key] = value
    return labels


def test_split_is_stratified_seeded_and_whole(tmp_path: Path) -> None:
    labels = write_galaxies(tmp_path / "Galaxy10_DECals.h5")
    data = Galaxy10(root=str(tmp_path))
    train, test = data.load("train"), data.load("test")
    assert sorted([*train.indices, *test.indices]) == list(range(len(labels)))
    assert np.bincount(labels[test.indices]).tolist() == [2 + i % 2 for i in range(10)]
    assert Galaxy10(root=str(tmp_path / "Galaxy10_DECals.h5")).load("test").indices == test.indices
    assert Galaxy10(root=str(tmp_path), split_seed=1).load("test").indices != test.indices


def test_counts_of_the_published_file() -> None:
    sizes = torch.tensor([1081, 1853, 2645, 2027, 334, 2043, 1829, 2628, 1423, 1873])
    split = Galaxy10().split_indices(torch.repeat_interleave(torch.arange(10), sizes))
    assert (len(split["train"]), len(split["test"])) == (Galaxy10.about.train, Galaxy10.about.test)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches(tmp_path: Path, num_workers: int) -> None:
    labels = torch.from_numpy(write_galaxies(tmp_path / "Galaxy10_DECals.h5")).long()
    data = Galaxy10(root=str(tmp_path), batch_size=5, num_workers=num_workers)
    data.setup("fit")
    data.setup("test")
    sizes = [len(part) for part in (data.train_set, data.val_set, data.test_set)]  # type: ignore[arg-type]
    assert sum(sizes) == len(labels)
    seen: list[int] = []
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        for images, targets in loader:
            assert images.shape[1:] == (3, 8, 8)
            assert images.dtype == torch.uint8
            numbers = images[:, 0, 0, 0].long()
            assert torch.equal(labels[numbers], targets)
            seen += numbers.tolist()
    assert len(seen) == len(set(seen)) == len(labels) - sizes[0] % 5  # no image is in two of the splits


@pytest.mark.parametrize("on_test", [False, True])
def test_the_run_tells_its_split(tmp_path: Path, run: Callable[..., int], on_test: bool) -> None:
    labels = write_galaxies(tmp_path / "Galaxy10_DECals.h5")
    options = (f"--data.root={tmp_path}", "--data.batch_size=50", "--data.image_size=[8,8]")
    model = ("--model.variant=WaveMix-Lite-4/1", "--trainer.max_epochs=1", "--trainer.default_root_dir=run")
    assert run("fit", "--data=Galaxy10", f"--data.validate_on_test={on_test}", *options, *model) == 0
    split = json.loads(Path("run/split.json").read_text())
    held_out = [] if on_test else split["val"]
    assert sorted(split["train"] + held_out + split["test"]) == list(range(len(labels)))
    assert (split["val"] == split["test"]) == on_test
    assert split["test"] == Galaxy10(root=str(tmp_path)).load("test").indices


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ans": None}, "no key 'ans', it has 'images'"),
        ({"images": None, "ans": None}, "it has none"),
        ({"ans": np.full(250, 10)}, "expected classes 0 to 9, got 10"),
        ({"ans": np.zeros(3)}, "expected images"),
    ],
)
def test_bad_files(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    write_galaxies(tmp_path / "Galaxy10_DECals.h5", **changes)
    with pytest.raises(InputError, match=f"Galaxy10_DECals.h5: .*{said}"):
        Galaxy10(root=str(tmp_path)).load("train")


def test_missing_and_truncated(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="zenodo"):
        Galaxy10(root=str(tmp_path)).load("train")
    path = tmp_path / "Galaxy10_DECals.h5"
    write_galaxies(path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match="cannot be read as HDF5"):
        Galaxy10(root=str(tmp_path)).load("train")
    with pytest.raises(InputError, match="test_fraction"):
        Galaxy10(test_fraction=1.0)
