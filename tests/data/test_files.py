"""Loose image files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from wavemix_pl.data import EmbeddedFashionMNIST, ImageFiles
from wavemix_pl.data.files import find_images
from wavemix_pl.errors import InputError

PREPROCESSING = EmbeddedFashionMNIST().preprocessing


def test_files_and_folders_in_order(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg", "deep/c.JPEG", "notes.txt"):
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    single = tmp_path / "z.png"
    single.touch()
    found = find_images([str(single), str(tmp_path / "folder")])
    assert [str(path.relative_to(tmp_path)) for path in found] == [
        "z.png", "folder/a.jpg", "folder/b.png", "folder/deep/c.JPEG"
    ]  # fmt: skip


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing-here"):
        find_images([str(tmp_path / "nothing-here")])
    with pytest.raises(InputError, match="no image files"):
        find_images([str(tmp_path)])
    with pytest.raises(InputError, match="ckpt_path"):
        ImageFiles([str(tmp_path)])
    with pytest.raises(InputError, match="batch_size"):
        ImageFiles([str(tmp_path)], PREPROCESSING, batch_size=0)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1"])
def test_any_image_becomes_what_the_model_saw(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "image.png"
    Image.new("L", (28, 28), 255).convert(mode).save(path)
    data = ImageFiles([str(path)], PREPROCESSING)
    images, _ = data.on_after_batch_transfer(next(iter(data.predict_dataloader())), 0)
    assert images.shape == (1, 1, 28, 28)
    torch.testing.assert_close(images, torch.full_like(images, (1 - 0.2860) / 0.3530))


def test_sixteen_bits_and_orientation(tmp_path: Path) -> None:
    grey = torch.arange(28 * 28, dtype=torch.uint8).view(28, 28)
    Image.fromarray((grey.int() * 257).numpy().astype("uint16")).save(tmp_path / "16.png")
    Image.fromarray(grey.numpy()).save(tmp_path / "8.png")
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(grey.numpy()).save(tmp_path / "turned.png", exif=exif)
    ((sixteen, eight, turned), _) = next(iter(ImageFiles([str(tmp_path)], PREPROCESSING).predict_dataloader()))
    assert torch.equal(sixteen, eight)
    assert torch.equal(turned, eight.flip(1, 2))
    Image.fromarray(grey.float().numpy()).save(tmp_path / "float.tiff")
    with pytest.raises(InputError, match=r"float\.tiff: pixels of mode F"):
        list(ImageFiles([str(tmp_path / "float.tiff")], PREPROCESSING).predict_dataloader())


def test_the_same_pixels_as_in_training(tmp_path: Path) -> None:
    trained = EmbeddedFashionMNIST()
    image = trained.load("test").images[:1]
    Image.fromarray(image[0, 0].numpy()).save(tmp_path / "image.png")
    data = ImageFiles([str(tmp_path)], PREPROCESSING)
    images, _ = data.on_after_batch_transfer(next(iter(data.predict_dataloader())), 0)
    torch.testing.assert_close(images, trained.normalize(image))


def test_other_sizes_are_resized(tmp_path: Path) -> None:
    Image.new("RGB", (100, 60)).save(tmp_path / "image.png")
    images, _ = next(iter(ImageFiles([str(tmp_path)], PREPROCESSING).predict_dataloader()))
    assert images.shape == (1, 1, 28, 28)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    whole = tmp_path / "whole.png"
    Image.new("L", (50, 50), 128).save(whole)
    (tmp_path / "damaged.png").write_bytes(whole.read_bytes()[:60])
    with pytest.raises(InputError, match=r"damaged\.png"):
        list(ImageFiles([str(tmp_path)], PREPROCESSING).predict_dataloader())
