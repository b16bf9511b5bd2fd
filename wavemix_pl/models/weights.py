"""Weights from elsewhere: files, published names and state dicts, in the authors' layout or ours, into our models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from wavemix_pl.errors import InputError
from wavemix_pl.models.published import Task, refuse_unpublished
from wavemix_pl.models.published_weights import find_weights, resolve
from wavemix_pl.models.wavemix import WaveMixClassifier, WaveMixSegmenter, create_model

_PATH_PARTS = {"0": "expand", "3": "project", "4": "upsample", "5": "norm"}
_HEAD = ("head.", "pool.", "expand.")  # ours; the authors' with a head of other layers than they published
_NAMED = 3  # so many tensors an error names
_NO_STATE = "neither a checkpoint of wavemix_pl nor a state dict of a WaveMix model"


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a file of torch.save that holds plain values, or of safetensors; one that would run code is refused.

    Raises:
        InputError: No such file, a damaged one, or one that holds more than plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint")
    read = _load_safetensors if path.suffix.casefold() == ".safetensors" else _load_pickle
    try:
        return read(path)
    except InputError:
        raise
    except Exception as error:  # whatever a damaged file makes of the reader
        asked_for = re.search(r"GLOBAL (\S+)", str(error))
        if asked_for:
            raise InputError(f"{path}: not loaded, since loading it would run code ({asked_for[1]})") from None
        raise InputError(f"{path}: damaged, or no checkpoint ({type(error).__name__})") from None


def _load_pickle(path: Path) -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return checkpoint


def _load_safetensors(path: Path) -> dict[str, Any]:
    from safetensors.torch import load_file  # late: most who build a model load no such file

    return dict(load_file(path))


def our_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames the tensors of the authors' layout; leaves others as they are.

    The authors' classifier ends in `pool.2`; their released segmenter keeps the name `pool` for its three layers; that
    of the package calls them `expand`.

    Raises:
        InputError: Two tensors would have the same name.
    """
    if not any(re.match(r"layers\.\d+\.reduction\.", name) for name in state):
        return dict(state)
    segmenter = any(name.startswith("pool.0.") for name in state)
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        new = re.sub(r"^conv\.", "stem.", name)
        new = re.sub(r"^layers\.(\d+)\.reduction\.", r"blocks.\1.reduce.", new)
        new = re.sub(r"^layers\.(\d+)\.feedforward(\d?)\.([0345])\.", _path_name, new)
        new = re.sub(r"^pool\.", "head.", new) if segmenter else re.sub(r"^pool\.2\.", "head.linear.", new)
        new = re.sub(r"^expand\.", "head.", new)
        if new in renamed:
            raise InputError(f"the weights have {new} twice, once under the authors' name {name}")
        renamed[new] = tensor
    return renamed


def _path_name(match: re.Match[str]) -> str:
    block, level, part = match.groups()
    return f"blocks.{block}.paths.{int(level or 1) - 1}.{_PATH_PARTS[part]}."


def model_state(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The model's tensors, in our names, of a checkpoint of this project, a state dict of ours, or one of the authors'.

    What torch.compile and the parallel wrappers put before the names is taken off.

    Raises:
        InputError: It holds no such tensors.
    """
    state: Any = checkpoint
    if isinstance(checkpoint, Mapping):
        nested = (checkpoint.get(key) for key in ("state_dict", "model"))
        state = next((entry for entry in nested if isinstance(entry, Mapping)), checkpoint)
    if not isinstance(state, Mapping) or not all(isinstance(name, str) for name in state):
        raise InputError(_NO_STATE)
    prefix = "model."
    if any(name.startswith(prefix) for name in state):  # a LightningModule's: the model, without metrics and loss
        state = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    state = {re.sub(r"^((module|_orig_mod)\.)+", "", name): value for name, value in state.items()}
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(_NO_STATE)
    return our_names(state)


@dataclass(frozen=True)
class Transfer:
    """Which tensors went from one model to another.

    Attributes:
        taken: Names of the tensors that were copied: all, or the whole backbone.
        new: Names of the model's tensors that keep their fresh values: its head, or none.
        unused: Names of the source's tensors that had no place: its head, or none.
    """

    taken: list[str]
    new: list[str]
    unused: list[str]

    def __str__(self) -> str:
        parts = [f"{len(self.taken)} tensors taken"]
        parts += [f"new: {', '.join(self.new)}"] if self.new else []
        parts += [f"not used: {', '.join(self.unused)}"] if self.unused else []
        return "; ".join(parts)


def load_weights(model: nn.Module, source: str | Path | Mapping[str, Any], new_head: bool = False) -> Transfer:
    """Gives a model the weights of a source, each tensor of both accounted for.

    Args:
        model: A WaveMix, or with weights of its own any other model.
        source: A file (.pth, .pt, .ckpt, .safetensors), the name of published weights (see
            `published_weights.resolve`), or what such a file holds: in the authors' layout or ours.
        new_head: Whether the model keeps its head as it is, and the source's is not used: for other classes, or another
            task.

    Raises:
        InputError: No such source, one that would run code, or tensors that are missing, unknown or of another shape;
            they are named, and nothing changed.
    """
    if isinstance(source, (str, Path)):
        checkpoint = load_checkpoint(resolve(source))
        try:
            return load_weights(model, checkpoint, new_head)
        except InputError as error:
            raise InputError(f"{source}: {error}") from None
    state, target = model_state(source), model.state_dict()
    new = [name for name in target if new_head and name.startswith(_HEAD[0])]
    if new_head and not new:
        raise InputError(f"{type(model).__name__} has no part called head that could stay new: leave new_head out")
    unused = [name for name in state if new_head and name.startswith(_HEAD)]
    taken = [name for name in target if name not in new]
    _refuse_misfits({name: state[name] for name in state if name not in unused}, {name: target[name] for name in taken})
    model.load_state_dict({**target, **{name: state[name] for name in taken}})
    return Transfer(taken, new, unused)


def _refuse_misfits(state: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    """Names the first tensors that the two do not share."""
    missing = [name for name in target if name not in state]
    unknown = [name for name in state if name not in target]
    misshapen = [name for name in target if name in state and state[name].shape != target[name].shape]
    shapes = [
        f"{name} is {tuple(state[name].shape)} in the weights and {tuple(target[name].shape)} in the model"
        for name in misshapen
    ]
    parts = [f"the weights have no {_first(missing)}, which the model needs"] if missing else []
    parts += [f"the weights have {_first(unknown)}, which the model does not know"] if unknown else []
    parts += [_first(shapes)] if shapes else []
    if parts:
        of_head = all(name.startswith(_HEAD) for name in (*missing, *unknown, *misshapen))
        raise InputError("; ".join(parts) + ("; to keep the model's own new head: new_head=True" if of_head else ""))


def _first(entries: list[str]) -> str:
    more = len(entries) - _NAMED
    return ", ".join(entries[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def pretrained_model(
    name: str,
    num_classes: int | None = None,
    new_head: bool = False,
    task: Task | None = None,
    folder: str | Path | None = None,
    **overrides: Any,
) -> WaveMixClassifier | WaveMixSegmenter:
    """Builds a published model with its weights, in training mode as PyTorch builds every model.

    Args:
        name: Of published weights, as `wavemix-pl weights` lists them.
        num_classes: K, where it is not the published number: then only with `new_head`.
        new_head: Whether the head is a fresh one.
        task: Where it is not the published one: then only with `new_head`.
        folder: Of weights, see `published_weights.weights_folder`.
        overrides: Fields of `WaveMixConfig` that no weight depends on, such as dropout=0.0.

    Raises:
        InputError: No such name, other classes without `new_head`, or what `load_weights` and `resolve` raise.
    """
    entry = find_weights(name)
    num_classes, task = num_classes or entry.num_classes, task or entry.task
    if not new_head and (num_classes, task) != (entry.num_classes, entry.task):
        raise InputError(
            f"{name} has the head of {entry.task} with {entry.num_classes} classes, asked for is {task} with "
            f"{num_classes}: pass new_head=True for a fresh one, which must be trained"
        )
    config = entry.config if task == entry.task else entry.config.replace(head_dim=None)
    model = create_model(config, num_classes, task, **overrides)
    load_weights(model, resolve(name, folder), new_head)
    return model


def export_authors_state_dict(
    model: nn.Module, layout: Literal["package", "released"] = "package"
) -> dict[str, Tensor]:
    """A copy of a model's weights under the names of the authors' package `wavemix` 0.2.4: the inverse of `our_names`.

    Args:
        model: Classifier or segmenter. The package's segmenter is ours where the stem reduces by 4.
        layout: "package" is what the package's own classes load. "released" is the layout of the one segmenter that the
            authors released: a classifier of the package, with any stem, whose `pool` is replaced by the segmenter's
            three layers, of any width. For classifiers both are the same.

    Raises:
        InputError: A model that the package cannot express; the fields are named.
    """
    if not isinstance(model, (WaveMixClassifier, WaveMixSegmenter)):
        raise InputError(f"expected a WaveMixClassifier or WaveMixSegmenter, got {type(model).__name__}")
    if layout not in ("package", "released"):
        raise InputError(f"layout must be 'package' or 'released', got {layout!r}")
    config, state = model.config, model.state_dict()
    segmenter = isinstance(model, WaveMixSegmenter)
    if segmenter and layout == "released":
        refuse_unpublished(config.replace(head_dim=None), "classification")
    else:
        refuse_unpublished(config, "segmentation" if segmenter else "classification")
    with torch.device("meta"):
        built = (WaveMixSegmenter if segmenter else WaveMixClassifier)(config, 1).state_dict()
    if built.keys() != state.keys():
        raise InputError("the model is not as it was built, a fused one say: export the one that it was made from")
    head = {"head.linear.": "pool.2."} if not segmenter else {"head.": "expand." if layout == "package" else "pool."}
    return {
        _authors_name(name, config.level, head): tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in state.items()
    }


def _authors_name(name: str, level: int, head: Mapping[str, str]) -> str:
    parts = {ours: theirs for theirs, ours in _PATH_PARTS.items()}

    def path_name(match: re.Match[str]) -> str:
        number = "" if level == 1 else int(match[2]) + 1
        return f"layers.{match[1]}.feedforward{number}.{parts[match[3]]}."

    for ours, theirs in {"stem.": "conv.", **head}.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    name = re.sub(r"^blocks\.(\d+)\.reduce\.", r"layers.\1.reduction.", name)
    return re.sub(r"^blocks\.(\d+)\.paths\.(\d+)\.(\w+)\.", path_name, name)
