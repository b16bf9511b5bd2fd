"""Which errors of a training run are the user's to mend, and arguments that Lightning takes without looking."""

from __future__ import annotations

import math
import threading
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException

from wavemix_pl.errors import InputError, disk_error, input_error
from wavemix_pl.parser import plain_message

_AT_LEAST_1 = ("accumulate_grad_batches", "check_val_every_n_epoch", "num_nodes")


def refusal(error: Exception, begun: bool, trained: bool, directory: Path) -> InputError | None:
    """The error in one line, if the user can mend it; else None.

    Args:
        error: That ended the command.
        begun: Whether the verb had begun; what is wrong before is wrong with the arguments.
        trained: Whether a step had been made; until then what Lightning finds wrong is wrong with the arguments.
        directory: Of the run.
    """
    known = input_error(error) or disk_error(error, directory)
    if known is not None:
        return known
    of_arguments = isinstance(error, (ValueError, TypeError, RuntimeError)) and not begun
    if not trained and isinstance(error, ValueError):
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        of_arguments = of_arguments or frame.f_globals["__name__"].startswith("lightning.")
    # the last is Lightning's name for arguments that do not go together
    return (
        InputError(plain_message(str(error))) if of_arguments or isinstance(error, MisconfigurationException) else None
    )


def refuse_trainer(trainer: Namespace) -> None:
    """Refuses numbers with which Lightning would divide by zero, or that it takes for others.

    Raises:
        InputError: They are named.
    """
    for name in _AT_LEAST_1:
        value = trainer.get(name)
        if value is not None and value < 1:
            raise InputError(f"trainer.{name} must be at least 1, got {value}")
    if trainer.get("val_check_interval") == 0:
        raise InputError("trainer.val_check_interval must be a share of an epoch above 0 or a number of batches, got 0")
    clip = trainer.get("gradient_clip_val")
    if clip is not None and not 0 <= clip < math.inf:
        raise InputError(f"trainer.gradient_clip_val must be at least 0, got {clip}")


def refuse_told_by_data(command_line: Iterable[str], names: Iterable[str]) -> None:
    """Refuses arguments of the model that are those of the data, and would be replaced by them in silence.

    Raises:
        InputError: One of them was typed.
    """
    typed = {argument.partition("=")[0] for argument in command_line}
    for name in names:
        for option in (f"--model.{name}", f"--model.init_args.{name}"):
            if option in typed:
                raise InputError(f"{name} is told by the data: leave {option} out")


def refuse_resume_without_switch(checkpoint: Mapping[str, Any], config: Namespace) -> None:
    """After the switch a checkpoint holds the second optimizer's state, which the first cannot read.

    Raises:
        InputError: It was written after an OptimizerSwitch, and there is none now.
    """
    switched = checkpoint.get("callbacks", {}).get("OptimizerSwitch", {}).get("switched")
    present = config.trainer.callbacks or []
    names = [str(callback.get("class_path")) for callback in (present if isinstance(present, list) else [present])]
    if switched and not any(name.endswith("OptimizerSwitch") for name in names):
        raise InputError(
            f"{config.ckpt_path} was written after an OptimizerSwitch: go on with the same one "
            f"(--config {Path(config.trainer.default_root_dir, 'config.yaml')})"
        )


def thread_error(failed: threading.ExceptHookArgs) -> None:
    """TensorBoard's writer, which finds the disk full, is not heard twice: the run gets its error as well."""
    if failed.exc_value is None or disk_error(failed.exc_value, Path()) is None:
        threading.__excepthook__(failed)
