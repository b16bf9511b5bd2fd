"""Checkpoints of models with random weights, as runs on the data of the package write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from wavemix_pl import create_model
from wavemix_pl.data import EmbeddedFashionMNIST, FashionScenes
from wavemix_pl.data.base import ImageDataModule


def save(path: Path, data: ImageDataModule, task: Any, variant: str = "WaveMix-8/2 (level 2)") -> Path:
    torch.manual_seed(0)
    model = create_model(variant, data.num_classes, task=task, in_channels=1)
    arguments = {"variant": variant, "num_classes": data.num_classes, "in_channels": 1, "overrides": {}}
    if task == "segmentation":
        arguments["overrides"] = {"stride": 2}
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": state, "hyper_parameters": arguments, "preprocessing": data.preprocessing}, path)
    return path


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("classifier") / "best.ckpt", EmbeddedFashionMNIST(), "classification")


@pytest.fixture(scope="session")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("segmenter") / "best.ckpt", FashionScenes(), "segmentation")
