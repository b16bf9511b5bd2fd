"""Which directory a run gets, and what in it must not be overwritten."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn

from wavemix_pl.checkpoint_file import GO_ON_FROM, damage
from wavemix_pl.errors import InputError

# Tells the processes that Lightning starts for DDP which directory the first one has chosen.
_VARIABLE = "WAVEMIX_PL_RUN"


@dataclass(frozen=True)
class RunDirectory:
    """The directory of a training run.

    Attributes:
        path: Of the directory.
        checkpoint: From which the run goes on, or None.
        made_now: Whether this process made the directory.
        lock: Keeps other runs out of it; None in processes other than the first.
    """

    path: Path
    checkpoint: str | None
    made_now: bool
    lock: FileLock | None = None

    def discard(self) -> None:
        """Removes what a run left that was refused before it trained."""
        if self.made_now and not any(self.path.rglob("*.ckpt")):
            shutil.rmtree(self.path, ignore_errors=True)


def choose_directory(given: str | None, name: str, checkpoint: str | None) -> RunDirectory:
    """Decides where a run is written and from which checkpoint it goes on.

    Args:
        given: The directory that was asked for, or None: then that of the checkpoint, or one below `runs/`.
        name: Of a directory below `runs/`; a number is added where there are runs of this name.
        checkpoint: None, "best" or "last" of the directory (of the newest below `runs/`), "hpc", or a file. A "last"
            that is not there, or is damaged, is the one before it or else the best, and where there is none either a
            new run begins, so that one command can both start and go on.

    Raises:
        InputError: The directory holds a run that would be overwritten, or whose checkpoints are all damaged, another
            process is at work in it, or several processes that were not started by Lightning have no common directory.
    """
    if not _first_process() and _VARIABLE in os.environ:
        path = Path(os.environ[_VARIABLE])
        return RunDirectory(path, _checkpoint_in(path, checkpoint), made_now=False)
    path, made_now = (Path(given).expanduser(), False) if given else _below_runs(name, checkpoint)
    made_now = made_now or not path.exists()  # in that case Lightning makes it
    found = _checkpoint_in(path, checkpoint)
    own = found == "hpc" or (found is not None and directory_of(Path(found)).resolve() == path.resolve())
    if _first_process() and not own and any(path.glob("checkpoints/*.ckpt")):
        raise InputError(
            f"{path} holds a run: go on with --ckpt_path=last, or choose another --trainer.default_root_dir"
        )
    if checkpoint in GO_ON_FROM and found is None:
        rank_zero_info(f"{path} has no {checkpoint}.ckpt to go on from: a new run")
    lock = lock_directory(path) if _first_process() else None
    os.environ[_VARIABLE] = str(path)
    return RunDirectory(path, found, made_now, lock)


def lock_directory(path: Path, name: str = ".lock") -> FileLock:
    """Keeps a directory for this process, until the lock is released or the process ends, however it ends.

    Raises:
        InputError: Another process has it.
    """
    path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path / name)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"another process is at work in {path}: wait for it, or choose another directory") from None
    return lock


def _below_runs(name: str, checkpoint: str | None) -> tuple[Path, bool]:
    """A directory, and whether it was made here."""
    if int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS") or 1) > 1:
        raise InputError("several processes need one directory: pass --trainer.default_root_dir=DIRECTORY")
    if checkpoint and checkpoint not in ("hpc", *GO_ON_FROM):
        return directory_of(Path(checkpoint)), False
    names = (Path("runs", name if number == 1 else f"{name}-{number}") for number in count(1))
    newest = None
    for path in names:
        if not path.exists() and checkpoint in GO_ON_FROM and newest:
            return newest, False
        try:
            path.mkdir(parents=True)  # at once: another run may be looking for a name as well
            return path, True
        except FileExistsError:
            newest = path
    raise AssertionError("names are endless")


def _checkpoint_in(path: Path, checkpoint: str | None) -> str | None:
    if checkpoint is None or checkpoint not in GO_ON_FROM:
        return checkpoint
    files = (path / "checkpoints" / f"{name}.ckpt" for name in GO_ON_FROM[checkpoint])
    damaged: list[str] = []
    for file in filter(Path.exists, files):
        wrong = damage(file)
        if wrong is None:
            if damaged:
                rank_zero_warn(f"{'; '.join(damaged)}. Going on from {file}, which is whole")
            return str(file)
        damaged.append(f"{file}: {wrong}")
    if damaged:
        raise InputError(
            f"no whole checkpoint to go on from: {'; '.join(damaged)}; put back a copy, or begin anew with another "
            "--trainer.default_root_dir"
        )
    return None


def _first_process() -> bool:
    return int(getattr(rank_zero_only, "rank", 0)) == 0


def directory_of(checkpoint: Path) -> Path:
    """The directory of the run that wrote a checkpoint."""
    folder = checkpoint.parent
    return folder.parent if folder.name == "checkpoints" else folder
