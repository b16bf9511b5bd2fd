"""Which model a command line means: that of a checkpoint, that of published weights, or the one it asks for."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from wavemix_pl.checkpoint_file import refuse_damage
from wavemix_pl.errors import InputError
from wavemix_pl.models.published_weights import known_weights
from wavemix_pl.models.shipped import ShippedModel
from wavemix_pl.models.weights import load_checkpoint


class ModelArguments:
    """What a command line says of the model, to be completed by what its checkpoint or its weights say.

    Args:
        model: The parsed arguments, `class_path` and `init_args`; they are changed.
        defaults: The same, where nothing is asked for.
        command_line: What was typed.
    """

    def __init__(self, model: Namespace, defaults: Namespace, command_line: list[str]) -> None:
        self._model, self._arguments, self._defaults = model, model.init_args, defaults.init_args
        self._typed = {argument.partition("=")[0] for argument in command_line}

    def asked(self, name: str) -> bool:
        """Whether the command line or a config names an argument, if only with its default."""
        return self._arguments.get(name) != self._defaults.get(name) or f"--model.{name}" in self._typed

    def take_from_run(self, checkpoint: dict[str, Any], path: str, linked: Set[str]) -> None:
        """Takes the arguments that a model was trained with, but for those that the data tell.

        Raises:
            InputError: Others were asked for.
        """
        saved = dict(checkpoint.get("hyper_parameters", {}))
        class_path = saved.pop("_class_path", self._model.class_path)
        if class_path != self._model.class_path:
            raise InputError(f"{path} holds a {class_path}: pass --model={class_path}")
        names = sorted({*saved} & {*self._defaults.keys()} - linked)
        differing = [name for name in names if self.asked(name) and self._arguments.get(name) != saved[name]]
        if differing:
            said = ", ".join(f"{name} {saved[name]!r}, not {self._arguments.get(name)!r}" for name in differing)
            options = " and ".join(f"--model.{name}" for name in differing)
            raise InputError(f"{path} was trained with {said}: leave {options} out")
        for name in names:
            self._arguments[name] = saved[name]

    def take_from_known_weights(self) -> dict[str, Any] | None:
        """Takes the model of weights that are called by their name, where no model was asked for.

        Returns:
            What a prediction needs to know of the data, in plain values; None where nobody tells.
        """
        weights, backbone = (self._arguments.get(name) for name in ("weights", "backbone"))
        entry = known_weights(str(weights or backbone))
        if entry and not self.asked("variant"):
            of_backbone = {name: value for name, value in entry.overrides.items() if name != "head_dim"}
            overrides = entry.overrides if weights else of_backbone
            self._arguments["variant"] = entry.notation
            self._arguments["overrides"] = {**overrides, **(self._arguments.get("overrides") or {})}
        return entry.preprocessing if isinstance(entry, ShippedModel) else None


def read_run_checkpoint(path: str) -> dict[str, Any]:
    """Reads a checkpoint that a run of this project wrote.

    Raises:
        InputError: It is none, or damaged.
    """
    if "://" in path:
        raise InputError(f"{path}: download the checkpoint first, and pass the file")
    refuse_damage(Path(path))
    checkpoint = load_checkpoint(path)
    if not isinstance(checkpoint, dict) or not {"state_dict", "hyper_parameters"} <= checkpoint.keys():
        raise InputError(f"{path}: no checkpoint of 'wavemix-pl fit'")
    return checkpoint


def with_module_of_weights(command_line: list[str]) -> list[str]:
    """Puts in front which LightningModule a checkpoint or named weights are for; what is said later has precedence."""
    path, weights = _last(command_line, "--ckpt_path"), _last(command_line, "--model.weights")
    class_path = None
    if path and Path(path).is_file():
        class_path = read_run_checkpoint(path)["hyper_parameters"].get("_class_path")
    elif (entry := known_weights(weights)) and entry.task == "segmentation":
        class_path = "SegmentationModule"
    return [command_line[0], f"--model={class_path}", *command_line[1:]] if class_path else command_line


def _last(command_line: list[str], option: str) -> str:
    """The option's value, as `--option value` or `--option=value`; empty where it is not given."""
    values = [value for name, value in zip(command_line, [*command_line[1:], ""], strict=True) if name == option]
    values += [argument.partition("=")[2] for argument in command_line if argument.startswith(f"{option}=")]
    return values[-1] if values else ""
