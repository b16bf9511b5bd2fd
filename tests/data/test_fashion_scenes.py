"""FashionScenes: always the same, of the garments it says, with masks that fit."""

from __future__ import annotations

import torch

from wavemix_pl.data import EmbeddedFashionMNIST, FashionScenes
from wavemix_pl.data.fashion_scenes import compose_scenes

SMALL = {"scenes": 20, "val_scenes": 10, "test_scenes": 10}


def made() -> FashionScenes:
    data = FashionScenes(**SMALL)
    data.setup("fit")
    data.setup("test")
    return data


def test_scenes_are_always_the_same() -> None:
    first, second = made(), made()
    for split in ("train_set", "val_set", "test_set"):
        a, b = getattr(first, split), getattr(second, split)
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.targets, b.targets)
    assert not torch.equal(first.val_set.images, first.test_set.images)  # type: ignore[union-attr]


def test_validation_on_test_scenes() -> None:
    data = FashionScenes(**SMALL, validate_on_test=True)
    data.setup("fit")
    assert torch.equal(data.train_set.images, data.load("train").images)  # type: ignore[union-attr]
    assert torch.equal(data.val_set.images, data.load("test").images)  # type: ignore[union-attr]


def test_form_and_labels() -> None:
    data = made()
    images, masks = data.train_set.images, data.train_set.targets  # type: ignore[union-attr]
    assert images.shape == (20, 1, 64, 64)
    assert images.dtype == torch.uint8
    assert masks.shape == (20, 64, 64)
    assert set(masks.unique().tolist()) <= {*range(11), 255}
    garments = [(mask[(mask > 0) & (mask < 255)].unique()).numel() for mask in masks]
    assert max(garments) >= 2
    assert min(garments) >= 1
    assert len(data.class_names) == len(data.colors) == data.num_classes == 11


def test_a_garment_has_its_class_and_a_rim_of_void() -> None:
    garments = EmbeddedFashionMNIST().load("test")
    trousers = type(garments)(garments.images[garments.targets == 1], garments.targets[garments.targets == 1])
    masks = compose_scenes(trousers, 5, seed=9).targets
    assert set(masks.unique().tolist()) == {0, 2, 255}
    inside = (masks == 2).float()[:, None]
    touching = torch.nn.functional.max_pool2d(inside, 3, 1, 1)[:, 0] > 0
    assert not ((masks == 0) & touching).any()


def test_flip_moves_the_mask_with_the_image() -> None:
    from types import SimpleNamespace

    data = FashionScenes(**SMALL, augment="flip")
    data.trainer = SimpleNamespace(training=True)  # type: ignore[assignment]
    masks = torch.randint(0, 11, (64, 4, 6))
    images = masks[:, None].to(torch.uint8)
    moved, targets = data.on_after_batch_transfer((images, masks), 0)
    restored = (moved * 0.3530 + 0.2860) * 255
    torch.testing.assert_close(restored[:, 0].round().long(), targets)
    assert not torch.equal(targets, masks)
