"""Split, order, workers, ranks, and the work on whole batches."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from wavemix_pl.data import EmbeddedFashionMNIST, FashionMNIST
from wavemix_pl.data.tensor_images import TensorImages
from wavemix_pl.errors import InputError


def module(
    root: Path, world: int = 1, rank: int = 0, training: bool = True, trained: int = 0, **arguments: Any
) -> FashionMNIST:
    """The data of a run that goes on after so many batches of an epoch, or begins."""
    data = FashionMNIST(root=str(root), **{"batch_size": 12, "val_fraction": 0.25, **arguments})
    progress = SimpleNamespace(current=SimpleNamespace(ready=trained))
    data.trainer = SimpleNamespace(  # type: ignore[assignment]
        world_size=world,
        global_rank=rank,
        training=training,
        fit_loop=SimpleNamespace(is_resuming=trained > 0, epoch_loop=SimpleNamespace(batch_progress=progress)),
    )
    data.setup("fit")
    data.setup("test")
    return data


def epoch(loader: Any, number: int) -> list[bytes]:
    """The images of an epoch, in order."""
    loader.sampler.set_epoch(number)
    return [image.numpy().tobytes() for images, _ in loader for image in images]


def test_split_is_seeded_whole_and_disjoint(data_root: Path) -> None:
    parts = {}
    for seed in (0, 0, 1):
        data = module(data_root, split_seed=seed)
        train, val = data.train_set.indices, data.val_set.indices  # type: ignore[union-attr]
        assert sorted([*train, *val]) == list(range(80))
        assert len(val) == 20
        assert parts.setdefault(seed, val) == val
    assert parts[0] != parts[1]


def test_validation_on_test_images(data_root: Path) -> None:
    data = module(data_root, validate_on_test=True)
    assert len(data.train_set) == 80  # type: ignore[arg-type]
    assert epoch(data.val_dataloader(), 0) == epoch(data.test_dataloader(), 0)
    assert len(epoch(data.val_dataloader(), 0)) == 20


def test_batches_have_the_form_that_the_plan_says(data_root: Path) -> None:
    data = module(data_root)
    images, targets = next(iter(data.train_dataloader()))
    assert images.dtype == torch.uint8
    assert images.shape == (12, 1, 28, 28)
    assert targets.dtype == torch.int64
    assert 0 <= int(targets.min()) <= int(targets.max()) < data.num_classes == 10
    normal, _ = data.on_after_batch_transfer((images, targets), 0)
    assert normal.dtype == torch.float32
    torch.testing.assert_close(normal * 0.3530 + 0.2860, images.float() / 255)


@pytest.mark.parametrize("workers", [0, 2])
def test_order_depends_on_seed_and_epoch_alone(data_root: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "3")
    reference = module(data_root).train_dataloader()
    first, second = epoch(reference, 0), epoch(reference, 1)
    assert first != second
    assert sorted(first) != first
    torch.rand(7)
    other = module(data_root, num_workers=workers).train_dataloader()
    assert epoch(other, 1) == second  # without epoch 0 before it, as after a resume
    monkeypatch.setenv("PL_GLOBAL_SEED", "4")
    assert epoch(module(data_root).train_dataloader(), 0) != first


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("augment", ["none", "trivial"])
def test_going_on_within_an_epoch(data_root: Path, workers: int, augment: str) -> None:
    """Only the rest of the epoch is loaded, once; then whole epochs."""
    whole = module(data_root, augment=augment).train_dataloader()
    third, fourth = epoch(whole, 3), epoch(whole, 4)
    data = module(data_root, augment=augment, num_workers=workers, trained=2)
    loader = data.train_dataloader()
    assert len(loader) == len(whole) == 5
    first = iter(loader)  # the trainer makes it before it says which epoch it is
    loader.sampler.set_epoch(3)  # type: ignore[attr-defined]
    assert [image.numpy().tobytes() for images, _ in first for image in images] == third[24:]
    assert epoch(loader, 3) == third
    assert epoch(loader, 4) == fourth


def test_what_was_seen_is_not_loaded(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[int] = []
    data = module(data_root, trained=4)
    monkeypatch.setattr(type(data.train_set), "__getitems__", lambda self, rows: loaded.extend(rows) or [(0, 0)])
    list(data.train_dataloader())
    assert len(loaded) == 12


@pytest.mark.parametrize("world", [1, 2])
def test_ranks_go_on_at_the_same_batch(data_root: Path, world: int) -> None:
    """Of 65 images an even number trains; what the ranks have left together is the rest of the epoch."""
    arguments = {"batch_size": 12, "val_fraction": 0.1875}
    parts = [module(data_root, world, rank, trained=3, **arguments) for rank in range(world)]
    rest = [image for data in parts for image in epoch(data.train_dataloader(), 1)]
    whole = epoch(module(data_root, **arguments).train_dataloader(), 1)
    assert sorted(rest) == sorted(whole[36:])
    assert len(rest) == 24


def test_workers_by_spawn(data_root: Path) -> None:
    data = module(data_root, num_workers=1)
    loader = data.train_dataloader()
    loader.multiprocessing_context = "spawn"
    assert epoch(loader, 0) == epoch(module(data_root).train_dataloader(), 0)


def test_loaders_leave_the_global_generator_alone(data_root: Path) -> None:
    data = module(data_root)
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    list(data.train_dataloader())
    list(data.val_dataloader())
    assert torch.rand(1) == expected


@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_share_the_batch_and_see_each_image_once(data_root: Path, world: int) -> None:
    ranks = [module(data_root, world, rank, batch_size=6) for rank in range(world)]
    assert {len(next(iter(data.train_dataloader()))[1]) for data in ranks} == {6 // world}
    held_out = [image for data in ranks for image in epoch(data.val_dataloader(), 0)]
    single = epoch(module(data_root).val_dataloader(), 0)
    assert sorted(held_out) == sorted(single)
    assert len(single) == 20


def test_batch_size_must_divide(data_root: Path) -> None:
    with pytest.raises(InputError, match="3 devices"):
        module(data_root, world=3, batch_size=8).train_dataloader()


def test_last_incomplete_batch_is_dropped_in_training_only(data_root: Path) -> None:
    data = module(data_root, batch_size=59)
    assert [len(targets) for _, targets in data.train_dataloader()] == [59]
    assert sum(len(targets) for _, targets in data.test_dataloader()) == 20
    small = module(data_root, batch_size=500)
    assert [len(targets) for _, targets in small.train_dataloader()] == [60]


def flip_rate(data: FashionMNIST, images: Tensor) -> float:
    plain = data.normalize(images)
    out, _ = data.on_after_batch_transfer((images, torch.zeros(len(images))), 0)
    flipped = (out == plain.flip(-1)).all(dim=3).all(dim=2).flatten()
    kept = (out == plain).all(dim=3).all(dim=2).flatten()
    assert bool((flipped | kept).all())
    return float(flipped.float().mean())


def test_flip_is_drawn_image_by_image_and_only_in_training(data_root: Path) -> None:
    images = torch.randint(0, 256, (400, 1, 4, 4), dtype=torch.uint8)
    torch.manual_seed(0)
    assert 0.4 < flip_rate(module(data_root, augment="flip"), images) < 0.6
    assert flip_rate(module(data_root, augment="flip", training=False), images) == 0
    assert flip_rate(module(data_root), images) == 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"batch_size": 0}, "batch_size"), ({"num_workers": -1}, "num_workers")]
    + [({"val_fraction": value}, "val_fraction") for value in (0, 1, -0.5, 1e-6)],
)
def test_bad_arguments(data_root: Path, arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        module(data_root, **arguments)


def test_whole_batches_equal_single_items() -> None:
    images = TensorImages(torch.arange(12).view(3, 1, 2, 2), torch.tensor([5, 6, 7]))
    batch, targets = images.__getitems__([2, 0])
    assert targets.tolist() == [7, 5]
    assert torch.equal(batch[0], images[2][0])


def test_preprocessing_is_plain() -> None:
    values = EmbeddedFashionMNIST().preprocessing
    assert values["image_size"] == [28, 28]
    assert all(value is None or isinstance(value, (list, int)) for value in values.values())


def test_images_are_resized_to_the_size_that_was_asked_for(data_root: Path) -> None:
    data = module(data_root, image_size=(14, 20))
    data.setup("fit")
    assert data.preprocessing["image_size"] == [14, 20]
    batch = next(iter(data.val_dataloader()))
    images, _ = data.on_after_batch_transfer(batch, 0)
    assert images.shape[-2:] == (14, 20)
    expected = torch.nn.functional.interpolate(batch[0].float(), (14, 20), mode="bilinear", antialias=True).round()
    assert (images - data.normalize(expected.to(torch.uint8))).abs().max() <= 1.01 / 255 / data.std[0]


def test_mean_and_std_of_ones_own(data_root: Path) -> None:
    """For weights that were trained on images normalised otherwise."""
    data = module(data_root, mean=[0.0], std=[1.0])
    images, _ = data.on_after_batch_transfer(next(iter(data.val_dataloader())), 0)
    raw, _ = next(iter(data.val_dataloader()))
    torch.testing.assert_close(images, raw / 255)
    assert data.preprocessing["mean"] == [0.0]  # so that predictions prepare their images alike
    assert module(data_root).preprocessing["mean"] == list(FashionMNIST.mean)
    for wrong in ({"mean": [0.1, 0.2]}, {"std": [0.0]}, {"mean": [0.5], "std": [1.0, 1.0, 1.0]}):
        with pytest.raises(InputError, match="a number for each channel"):
            module(data_root, **wrong)
