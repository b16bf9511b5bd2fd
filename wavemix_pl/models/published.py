"""The authors' published package, `wavemix` 0.2.4, for comparisons."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any, Literal, cast

import numpy as np
from torch import nn

from wavemix_pl.config import WaveMixConfig
from wavemix_pl.errors import InputError

Task = Literal["classification", "segmentation"]


def refuse_unpublished(config: WaveMixConfig, task: Task) -> None:
    """Refuses models that the published package cannot build.

    Raises:
        InputError: With the fields whose values it does not know.
    """
    known: dict[str, tuple[Any, ...]] = {
        **{"wavelet": ("haar", "db1"), "mixer": ("dwt",), "upsample": ("deconv",), "level": (1, 2, 3, 4)},
        **{"in_channels": (3,), "stem": ("strided", "patchify"), "head_dim": (None,)},
    }
    if task == "segmentation":
        known |= {"stem": ("strided",), "head_dim": (None, config.dim // 2)}
    unknown = [name for name, values in known.items() if getattr(config, name) not in values]
    if unknown:
        given = ", ".join(f"{name}={getattr(config, name)!r}" for name in unknown)
        raise InputError(f"the published package has no {config.notation} for {task} with {given}")


def published_model(config: WaveMixConfig, num_classes: int, task: Task = "classification") -> nn.Module:
    """The published package's model of a config, with weights of its own; `weights.our_names` renames them to ours.

    Args:
        config: What the published package knows, see `refuse_unpublished`; but for images of other than three channels
            its first convolution is replaced.
        num_classes: K.
        task: Which of its two models.

    Raises:
        InputError: The package is not installed, or has no such model.
    """
    refuse_unpublished(config.replace(in_channels=3), task)
    strided = config.stem == "strided"
    arguments: dict[str, Any] = {
        **{"num_classes": num_classes, "depth": config.depth, "mult": config.mult, "ff_channel": config.ff},
        **{"final_dim": config.dim, "dropout": config.dropout, "level": config.level, "stride": config.stride},
    }
    if task == "classification":
        arguments |= {"initial_conv": "strided" if strided else "pachify", "patch_size": config.patch_size}
    model: nn.Module = _package(task).WaveMix(**arguments)
    if config.in_channels != 3:
        convolutions = cast(nn.Sequential, model.conv)
        first = cast(Any, convolutions[0])
        convolutions[0] = nn.Conv2d(config.in_channels, first.out_channels, 3, first.stride, padding=1)
    return model


def _package(task: str) -> ModuleType:
    if "numpy.lib.function_base" not in sys.modules:  # of which the package imports a name that NumPy 2 removed
        stand_in = ModuleType("numpy.lib.function_base")
        stand_in.hamming = np.hamming  # type: ignore[attr-defined]  # a module made by hand
        sys.modules["numpy.lib.function_base"] = stand_in
    try:
        return import_module("wavemix.SemSegment" if task == "segmentation" else "wavemix.classification")
    except ImportError:
        raise InputError("the published package is not here: pip install 'wavemix_pl[benchmark]'") from None
