"""Augmentation of single images and of batches: seeded, in training only, with targets that fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.data.test_base import module
from wavemix_pl.data import FashionScenes
from wavemix_pl.data.augmentation import Regularization, flip, mix, single_image_transform
from wavemix_pl.errors import InputError


@pytest.mark.parametrize("augment", ["trivial", "rand"])
def test_single_images_change_with_epoch_and_seed_but_not_with_workers(
    data_root: Path, monkeypatch: pytest.MonkeyPatch, augment: str
) -> None:
    def epoch(number: int, seed: int = 0, **arguments: Any) -> Tensor:
        monkeypatch.setenv("PL_GLOBAL_SEED", str(seed))
        data = module(data_root, augment=augment, **arguments)
        data.setup("fit")
        loader = data.train_dataloader()
        loader.sampler.set_epoch(number)  # type: ignore[attr-defined]  # as the trainer does
        order = torch.tensor(list(loader.sampler)) % 60
        images = torch.cat([images for images, _ in loader])
        return images[order[: len(images)].argsort()]

    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = epoch(0)
    assert torch.equal(torch.get_rng_state(), state)  # the model's dropout does not hang on it
    assert torch.equal(first, epoch(0, num_workers=2))
    assert not torch.equal(first, epoch(1))
    assert not torch.equal(first, epoch(0, seed=1))


def test_validation_images_are_not_augmented(data_root: Path) -> None:
    plain, augmented = module(data_root), module(data_root, augment="trivial")
    for data in (plain, augmented):
        data.setup("fit")
    for a, b in zip(plain.val_dataloader(), augmented.val_dataloader(), strict=True):
        assert torch.equal(a[0], b[0])


def test_masks_and_single_image_augmentation_do_not_go_together() -> None:
    with pytest.raises(InputError, match="leave their masks"):
        FashionScenes(augment="trivial")
    with pytest.raises(InputError, match="leave their masks"):
        FashionScenes(regularization=Regularization(cutmix=1.0))
    FashionScenes(augment="flip", regularization=Regularization(flip=True))


def test_erasing_puts_the_mean_color_in_a_rectangle() -> None:
    transform = single_image_transform("none", erasing=1.0, mean=(0.5, 0.25, 1.0))
    assert transform is not None
    image = torch.zeros(3, 20, 20, dtype=torch.uint8)
    erased = transform(image)
    where = (erased != image).any(0)
    assert where.any()
    assert not where.all()
    assert erased[:, where].unique(dim=1).flatten().tolist() == [128, 64, 255]
    assert single_image_transform("none", 0.0, (0.5,)) is None
    assert single_image_transform("flip", 0.0, (0.5,)) is None  # done on whole batches


def test_flip_takes_about_half_and_their_masks() -> None:
    images = torch.arange(400 * 6).view(400, 1, 2, 3)
    flipped, masks = flip(images, images[:, 0])
    assert torch.equal(flipped[:, 0], masks)
    changed = (flipped != images).flatten(1).any(1)
    assert 120 < int(changed.sum()) < 280
    assert torch.equal(flipped[changed], images[changed].flip(-1))


@pytest.mark.parametrize(("mixup", "cutmix"), [(1.0, 0.0), (0.0, 1.0)])
def test_mixed_targets_are_shares_of_what_is_in_the_images(mixup: float, cutmix: float) -> None:
    """Each class is one plane of the images, so that their means tell what was mixed."""
    targets = torch.arange(6) % 3
    images = torch.nn.functional.one_hot(targets, 3).float()[:, :, None, None].expand(-1, -1, 8, 8)
    for _ in range(5):
        mixed, shares = mix(images.clone(), targets, 3, mixup, cutmix)
        assert shares.shape == (6, 3)
        torch.testing.assert_close(mixed.mean((2, 3)), shares)
        torch.testing.assert_close(shares.sum(1), torch.ones(6))
    assert mix(images, targets, 3, 0, 0) == (images, targets)


def test_both_kinds_of_mixing_occur() -> None:
    images, targets = torch.eye(2)[:, :, None, None].expand(-1, -1, 16, 16).clone(), torch.arange(2)
    kinds = set()
    for _ in range(60):
        mixed, shares = mix(images.clone(), targets, 2, 1.0, 1.0)
        if 0.01 < float(shares.max()) < 0.99:
            kinds.add("cutmix" if set(mixed.unique().tolist()) <= {0.0, 1.0} else "mixup")
    assert kinds == {"mixup", "cutmix"}


def test_training_batches_only(data_root: Path) -> None:
    regularization = Regularization(mixup=0.2, cutmix=1.0)
    batch = (torch.zeros(4, 1, 28, 28, dtype=torch.uint8), torch.arange(4))
    for training in (True, False):
        data = module(data_root, training=training, regularization=regularization)
        _, targets = data.on_after_batch_transfer(batch, 0)
        assert targets.shape == ((4, 10) if training else (4,))


@pytest.mark.parametrize("values", [{"erasing": 1.5}, {"mixup": -1.0}, {"cutmix": -0.1}])
def test_bad_values(values: dict[str, float]) -> None:
    with pytest.raises(InputError, match="erasing is a probability"):
        Regularization(**values)  # type: ignore[arg-type]


def test_from_the_command_line(run: Callable[..., int], data_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ("--data=FashionMNIST", f"--data.root={data_root}", "--data.batch_size=20", "--data.augment=rand")
    extra = ("--data.regularization.mixup=0.2", "--data.regularization.cutmix=1", "--data.regularization.erasing=0.25")
    model = ("--model.variant=WaveMix-Lite-4/1", "--model.label_smoothing=0.1", "--trainer.max_epochs=2")
    assert run("fit", *data, *extra, *model, "--trainer.default_root_dir=run") == 0
    assert "train_acc1" in Path("run/metrics.csv").read_text()
    assert run("fit", *data, *extra, *model, "--trainer.callbacks+=FocalLossCallback") == 2
    assert "leave mixup and cutmix out" in capsys.readouterr().err
    assert not list(Path("runs").rglob("*"))  # nothing is left
