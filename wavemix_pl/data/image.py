"""Opening image files: one place, so that the same file gives the same pixels in training and in prediction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from wavemix_pl.errors import InputError


def open_pixels(
    path: str | Path, mode: Literal["L", "RGB"] = "RGB", upright: bool = False, content: BinaryIO | None = None
) -> Tensor:
    """The pixels (C, H, W) uint8 of an image file.

    Args:
        path: Of the file.
        mode: Grey or color.
        upright: Whether to turn it as its camera says (EXIF); torchvision does not, nor does training.
        content: What is in the file, where it is part of another; then `path` is its name in errors.

    Raises:
        InputError: The file cannot be read, or its pixels have no known range.
    """
    with opened(path, content) as image:
        turned = ImageOps.exif_transpose(image) if upright else image
        pixels: Tensor = TF.pil_to_tensor(_eight_bits(turned, path).convert(mode))
        return pixels


def open_ids(path: str | Path) -> Tensor:
    """The ids (H, W) uint8 in the pixels of a mask file, grey or with a palette.

    Raises:
        InputError: The file cannot be read, or holds something else.
    """
    with opened(path) as image:
        if image.mode not in ("L", "P", "1"):
            raise InputError(f"{path}: a mask has one number of 8 bits in each pixel, not mode {image.mode}")
        ids: Tensor = TF.pil_to_tensor(image)[0]
        return ids


@contextmanager
def opened(path: str | Path, content: BinaryIO | None = None) -> Iterator[Image.Image]:
    """An image file, or what is in one, open for the body.

    Raises:
        InputError: It cannot be read, which may show in the body only.
    """
    try:
        with Image.open(content or path) as image:
            yield image
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # PIL's words for a damaged file
        raise InputError(f"{path}: cannot be read as an image ({error})") from None


def _eight_bits(image: Image.Image, path: str | Path) -> Image.Image:
    """Brings 16-bit grey to the 8 bits of every other image; PIL itself would cut it off at 255."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise InputError(f"{path}: pixels of mode {image.mode}, without a range: save it with 8 or 16 bits a channel")
    return image
