"""Where people look at a run: TensorBoard and Weights & Biases, through whichever of them are its loggers."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import lightning as L
import numpy as np
from PIL import Image

from wavemix_pl.pictures import rendered

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def boards(trainer: L.Trainer) -> list[Any]:
    """The loggers that show pictures: Lightning's WandbLogger, and those whose `experiment` is a SummaryWriter."""
    return [
        logger for logger in trainer.loggers if hasattr(logger, "log_image") or hasattr(_writer(logger), "add_image")
    ]


def show_picture(trainer: L.Trainer, name: str, figure: Figure) -> None:
    """Logs a figure at the last step that was made, as Lightning logs what an epoch ends with."""
    with Image.open(io.BytesIO(rendered(figure, "png", dpi=100))) as opened:
        picture = opened.convert("RGB")
    for logger in boards(trainer):
        if hasattr(logger, "log_image"):
            logger.log_image(key=name, images=[picture], step=_last_step(trainer))
        else:  # not add_figure, which imports pyplot
            _writer(logger).add_image(name, np.asarray(picture), _last_step(trainer), dataformats="HWC")


def show_text(trainer: L.Trainer, name: str, text: str) -> None:
    """Logs a line of text at the step that comes next."""
    for logger in boards(trainer):
        if hasattr(logger, "log_text"):
            logger.log_text(key=name, columns=["step", "text"], data=[[str(trainer.global_step), text]])
        else:
            _writer(logger).add_text(name, text, trainer.global_step)


def show_numbers(trainer: L.Trainer, numbers: Mapping[str, float], coming: bool = False) -> None:
    """Logs numbers at the last step, or that which comes next; unlike what modules log, no other file has them."""
    step = trainer.global_step if coming else _last_step(trainer)
    for logger in boards(trainer):
        logger.log_metrics(dict(numbers), step=step)


def _last_step(trainer: L.Trainer) -> int:
    # a run that goes on from here takes back what was logged from its first step on, which is trainer.global_step
    return max(trainer.global_step - 1, 0)


def _writer(logger: Any) -> Any:
    return getattr(logger, "experiment", None)
