"""The data that go with a trained model, by what its checkpoint says of its training images."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from wavemix_pl import data
from wavemix_pl.data.base import ImageDataModule
from wavemix_pl.errors import InputError

SAME = ("class_names", "in_channels", "mean", "std")  # of training and of the images that a model is shown later
_SHIPPED = ("EmbeddedFashionMNIST", "FashionScenes")


def shipped_data(preprocessing: Mapping[str, Any]) -> str | None:
    """The name of the data that come with the package, if a model was trained on such images."""
    for name in _SHIPPED:
        shipped = getattr(data, name)().preprocessing
        if all(shipped[key] == preprocessing.get(key) for key in (*SAME, "image_size")):
            return name
    return None


def matching_data(name: str, root: str, preprocessing: Mapping[str, Any], batch_size: int) -> ImageDataModule:
    """A data set by its name, with images of the size of the training.

    Args:
        name: Of a data module, such as "CIFAR10".
        root: Folder of data sets.
        preprocessing: Of the checkpoint; what it does not tell is as the data set has it.
        batch_size: Images at a time.

    Raises:
        InputError: No such data set, or its images are not of the kind that the model was trained on.
    """
    kinds = [kind for kind in data.__all__ if kind not in ("ImageDataModule", "ImageFiles")]
    if name not in kinds:
        raise InputError(f"unknown data set {name!r}; known are {', '.join(kinds)}")
    kind: Any = getattr(data, name)
    options: dict[str, Any] = {"batch_size": batch_size}
    if "root" in inspect.signature(kind).parameters:
        options["root"] = root
    module: ImageDataModule = kind(**options)
    size = tuple(preprocessing.get("image_size") or module.image_size)
    if module.image_size != size:
        module = kind(**options, image_size=size)
    for key in (key for key in SAME if key in preprocessing):
        here, there = module.preprocessing[key], preprocessing[key]
        if here != there:
            raise InputError(f"{name} has {key} {here}, not {there} as in training: choose the data of the training")
    return module
