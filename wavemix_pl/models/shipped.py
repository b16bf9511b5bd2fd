"""Small models that this project trained, and that come with the package: what each is, and where its files lie."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal

from wavemix_pl.config import WaveMixConfig

FOLDER = Path(__file__).with_name("shipped_models")


@dataclass(frozen=True)
class ShippedModel:
    """A folder as `save_pretrained` writes it, whose config tells more: how images are prepared, and what came out.

    Attributes:
        name: What every place that takes weights takes as well: data set and model.
        config: The model's.
        task: Which head.
        num_classes: K.
        preprocessing: Of the images, in plain values, as in the checkpoints of runs.
        results: Metric -> percent, of the test images.
        file: The weights.
    """

    name: str
    config: WaveMixConfig
    task: Literal["classification", "segmentation"]
    num_classes: int
    preprocessing: dict[str, Any]
    results: dict[str, float]
    file: Path

    @property
    def notation(self) -> str:
        return self.config.notation

    @property
    def overrides(self) -> Mapping[str, Any]:
        """The fields that the notation does not tell, but for the channels, which the data tell."""
        plain = WaveMixConfig.from_notation(self.notation, in_channels=self.config.in_channels)
        names = [field.name for field in fields(WaveMixConfig)]
        return {n: getattr(self.config, n) for n in names if getattr(self.config, n) != getattr(plain, n)}

    @property
    def image_size(self) -> tuple[int, int]:
        """Rows and columns."""
        height, width = self.preprocessing["image_size"]
        return height, width


@cache
def shipped_models() -> dict[str, ShippedModel]:
    """All of them by name."""
    return {model.name: model for model in map(_read, sorted(FOLDER.glob("*/*/config.json")))}


def _read(path: Path) -> ShippedModel:
    content = json.loads(path.read_text())
    known = {field.name for field in fields(WaveMixConfig)}
    return ShippedModel(
        name=path.parent.relative_to(FOLDER).as_posix(),
        config=WaveMixConfig(**{name: value for name, value in content.items() if name in known}),
        file=path.with_name("model.safetensors"),
        **{name: content[name] for name in ("task", "num_classes", "preprocessing", "results")},
    )
