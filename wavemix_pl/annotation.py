"""Image files with what a classifier says of them written below."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from PIL import Image, ImageDraw, ImageFont, ImageOps

from wavemix_pl.data.image import opened

_WIDTH = 320  # pixels that the text needs; smaller images are enlarged by a whole factor
_LINE = 20  # height of a line of text, in pixels


def annotate(file: Path, classes: Mapping[str, float], target: Path) -> None:
    """Writes an image with its classes below it, each with its probability as a number and as a bar.

    Args:
        file: The image.
        classes: Name -> probability, in the order of the lines.
        target: File to write, as PNG.

    Raises:
        InputError: The image cannot be read.
    """
    with opened(file) as image:
        shown = ImageOps.exif_transpose(image).convert("RGB")
    factor = max(1, -(-_WIDTH // shown.width))
    shown = shown.resize((factor * shown.width, factor * shown.height), Image.Resampling.NEAREST)
    picture = Image.new("RGB", (shown.width, shown.height + _LINE * len(classes) + 8), "white")
    picture.paste(shown, (0, 0))
    draw = ImageDraw.Draw(picture)
    font = cast(ImageFont.FreeTypeFont, ImageFont.load_default(size=13))
    for line, (name, probability) in enumerate(classes.items()):
        top = shown.height + 4 + _LINE * line
        draw.rectangle((0, top + 1, round(probability * (shown.width - 1)), top + _LINE - 2), fill="#cfe3f5")
        draw.text((6, top + 2), name, fill="black", font=font)
        draw.text((shown.width - 6, top + 2), f"{probability:.3f}", fill="black", font=font, anchor="ra")
    picture.save(target)
