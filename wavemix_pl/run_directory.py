"""Which directory a run gets, and what in it must not be overwritten."""

from __future__ import annotations

import os
from itertools import count, takewhile
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from wavemix_pl.errors import InputError

# Tells the processes that Lightning starts for DDP which directory the first one has chosen.
_VARIABLE = "WAVEMIX_PL_RUN"


def choose_directory(given: str | None, name: str, resume: bool) -> Path:
    """The directory of a training run.

    Args:
        given: What was asked for, or None for a directory below `runs/`.
        name: Of the directory below `runs/`; a number is added where runs of this name are there already.
        resume: Whether the run goes on from a checkpoint: then the newest directory of this name, if there is one.

    Raises:
        InputError: The directory holds a run that would be overwritten, or several processes that were not started by
            Lightning have no common directory.
    """
    first_process = int(getattr(rank_zero_only, "rank", 0)) == 0
    if not first_process and _VARIABLE in os.environ:
        return Path(os.environ[_VARIABLE])
    if given is None:
        if int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS") or 1) > 1:
            raise InputError("several processes need one directory: pass --trainer.default_root_dir=DIRECTORY")
        names = (Path("runs", name if number == 1 else f"{name}-{number}") for number in count(1))
        taken = list(takewhile(Path.exists, names))
        free = Path("runs", f"{name}-{len(taken) + 1}" if taken else name)
        directory = taken[-1] if resume and taken else free
    else:
        directory = Path(given)
        if first_process and not resume and any(directory.glob("checkpoints/*.ckpt")):
            raise InputError(f"{given} holds a run: go on with --ckpt_path=last, or choose another directory")
    os.environ[_VARIABLE] = str(directory)
    if first_process:
        _keep_metrics(directory / "metrics.csv")
    return directory


def _keep_metrics(path: Path) -> None:
    """Puts the metrics of an interrupted run out of the way of CSVLogger, which would delete them."""
    if path.exists():
        path.rename(next(free for n in count(1) if not (free := path.with_name(f"metrics.{n}.csv")).exists()))


def directory_of(checkpoint: Path) -> Path:
    """The directory of the run that wrote a checkpoint."""
    folder = checkpoint.parent
    return folder.parent if folder.name == "checkpoints" else folder
