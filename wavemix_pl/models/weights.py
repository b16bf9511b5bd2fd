"""Weights from elsewhere: the names of the authors' layout, and a classifier's backbone for another head."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wavemix_pl.errors import InputError

_PATH_PARTS = {"0": "expand", "3": "project", "4": "upsample", "5": "norm"}
_HEAD = ("pool.", "expand.", "head.")  # the authors' classifier and segmenter, and ours


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a file of torch.save that holds plain values; one that would run code is refused.

    Raises:
        InputError: No such file, a damaged one, or one that holds more than plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint")
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file makes of the unpickler
        asked_for = re.search(r"GLOBAL (\S+)", str(error))
        if asked_for:
            raise InputError(f"{path}: not loaded, since loading it would run code ({asked_for[1]})") from None
        raise InputError(f"{path}: damaged, or no checkpoint ({type(error).__name__})") from None
    return checkpoint


def our_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames the tensors of the authors' layout; leaves others as they are.

    The authors' classifier ends in `pool.2`; their released segmenter keeps the name `pool` for its three layers; that
    of the package calls them `expand`.
    """
    if not any(re.match(r"layers\.\d+\.reduction\.", name) for name in state):
        return dict(state)
    segmenter = any(name.startswith("pool.0.") for name in state)
    renamed = {}
    for name, tensor in state.items():
        new = re.sub(r"^conv\.", "stem.", name)
        new = re.sub(r"^layers\.(\d+)\.reduction\.", r"blocks.\1.reduce.", new)
        new = re.sub(r"^layers\.(\d+)\.feedforward(\d?)\.(\d)\.", _path_name, new)
        new = re.sub(r"^pool\.", "head.", new) if segmenter else re.sub(r"^pool\.2\.", "head.linear.", new)
        renamed[re.sub(r"^expand\.", "head.", new)] = tensor
    return renamed


def _path_name(match: re.Match[str]) -> str:
    block, level, part = match.groups()
    return f"blocks.{block}.paths.{int(level or 1) - 1}.{_PATH_PARTS[part]}."


def model_state(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The model's tensors, in our names, of a checkpoint of this project, a state dict of ours, or one of the authors'.

    Raises:
        InputError: It holds no such tensors.
    """
    state = checkpoint.get("state_dict", checkpoint)
    prefix = "model."
    if any(name.startswith(prefix) for name in state):  # a LightningModule's: the model, without metrics and loss
        state = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError("neither a checkpoint of wavemix_pl nor a state dict of a WaveMix model")
    return our_names(state)


@dataclass(frozen=True)
class Transfer:
    """Which tensors went from one model to another.

    Attributes:
        taken: Names of the tensors that were copied: the whole backbone.
        new: Names of the model's tensors that keep their fresh values: its head.
        unused: Names of the source's tensors that had no place: its head.
    """

    taken: list[str]
    new: list[str]
    unused: list[str]

    def __str__(self) -> str:
        return f"{len(self.taken)} tensors taken; new: {', '.join(self.new)}; not used: {', '.join(self.unused)}"


def transfer_backbone(model: nn.Module, checkpoint: Mapping[str, Any]) -> Transfer:
    """Gives a model the stem and the blocks of another one, such as a segmenter those of a classifier.

    Raises:
        InputError: A tensor of the backbone is missing, unknown or of another shape; it is named, and nothing changed.
    """
    source, target = model_state(checkpoint), model.state_dict()
    backbone = [name for name in target if not name.startswith(_HEAD)]
    for name in backbone:
        if name not in source:
            raise InputError(f"the weights have no {name}, which the model needs")
        if source[name].shape != target[name].shape:
            raise InputError(
                f"{name} is {tuple(source[name].shape)} in the weights and {tuple(target[name].shape)} in the model"
            )
    unused = [name for name in source if name not in backbone]
    unknown = [name for name in unused if not name.startswith(_HEAD)]
    if unknown:
        raise InputError(f"the weights have {unknown[0]}, which the model does not know")
    model.load_state_dict({**target, **{name: source[name] for name in backbone}})
    return Transfer(backbone, [name for name in target if name not in backbone], unused)
