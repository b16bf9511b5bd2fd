"""Runs to which something happens at chosen moments, and what is compared of them with a run that was left alone.

A run counts its events: each hook of a callback, each part of writing a checkpoint, each row of metrics. At any of
these it can be killed, get a signal, or find the disk full.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import os
import random
import resource
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from itertools import cycle
from multiprocessing import get_context, set_start_method
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback

from wavemix_pl.cli import main
from wavemix_pl.metrics_file import MetricsFile

RUN = "run"
SMALL = (
    "--data.batch_size=12",
    "--data.val_fraction=0.25",
    "--model.variant=WaveMix-Lite-4/1",
    "--trainer.max_epochs=3",
    "--trainer.accelerator=cpu",
    "--trainer.enable_model_summary=false",
    f"--trainer.default_root_dir={RUN}",
    "--ckpt_path=last",
    "--checkpoint_last.every_n_train_steps=1",
)


def kill() -> None:
    """Without warning, and the whole process group."""
    os.killpg(0, signal.SIGKILL)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def fill_disk() -> None:
    """From now on no file can be written: the system's answer is EFBIG, where that of a full disk is ENOSPC."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


class Events:
    """Counts, and lets something happen at the event that was chosen."""

    def __init__(self, last: int | None, report: Path, what: Callable[[], None]) -> None:
        self.count, self.last, self.report, self.what = 0, last, report, what

    def __call__(self) -> None:
        self.count += 1
        if self.count == self.last:
            self.what()


class Watch(Callback):
    """Makes an event of each hook; on the first process only."""

    events: Events

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if trainer.is_global_zero:
            self.events.report.write_text(str(self.events.count))


def _hook(name: str) -> Any:
    def hook(self: Watch, trainer: Any, *args: Any, **kwargs: Any) -> None:
        if trainer.is_global_zero:
            self.events()

    return hook


for _name, _ in inspect.getmembers(Callback, inspect.isfunction):
    if _name.startswith("on_") and _name != "on_exception":
        setattr(Watch, _name, _hook(_name))


def _make_events_of_writing(events: Events) -> None:
    """Before and after each checkpoint and row, and when half of a file is written."""
    torch_save, replace, log = torch.save, Path.replace, MetricsFile.log_metrics

    def save(value: Any, file: Any, **options: Any) -> None:
        if not isinstance(file, io.BufferedWriter):  # such as what processes send each other
            torch_save(value, file, **options)
            return
        buffer = io.BytesIO()
        torch_save(value, buffer)
        half = buffer.tell() // 2
        file.write(buffer.getvalue()[:half])
        file.flush()
        events()
        file.write(buffer.getvalue()[half:])

    @wraps(replace)
    def replaced(self: Path, target: Any) -> Path:
        events()
        result = replace(self, target)
        events()
        return result

    @wraps(log)
    def logged(self: MetricsFile, *args: Any, **kwargs: Any) -> None:
        events()
        log(self, *args, **kwargs)
        events()

    torch.save, Path.replace = save, replaced  # type: ignore[assignment, method-assign]
    MetricsFile.log_metrics = logged  # type: ignore[method-assign]


def _fit(folder: str, root: str, events: Events, options: Sequence[str], errors: Any) -> None:
    os.dup2(errors.fileno(), 2)
    os.setsid()  # a process group of its own, to be killed whole
    os.chdir(folder)
    os.environ["PL_GLOBAL_SEED"] = "0"
    torch.set_num_threads(1)
    set_start_method("fork", force=True)  # of workers; a forkserver of this process would import all of it anew
    Watch.events = events
    _make_events_of_writing(Watch.events)
    watch = f"--trainer.callbacks+={Watch.__module__}.{Watch.__qualname__}"
    try:
        code = main(["fit", "--data=FashionMNIST", f"--data.root={root}", *SMALL, *options, watch])
    except SystemExit as exit:
        code = int(exit.code or 0)
    os._exit(code)


@dataclass(frozen=True)
class Ended:
    """A run's exit code, or minus the signal that killed it, and what it said on standard error."""

    code: int
    said: str


def run_until(
    folder: Path, root: Path, options: Sequence[str] = (), last: int | None = None, what: Callable[[], None] = kill
) -> Ended:
    """A run in `folder` to which something happens at the event `last`."""
    folder.mkdir(parents=True, exist_ok=True)
    context = get_context("forkserver")  # each run is a process of its own, that need not import everything anew
    context.set_forkserver_preload(["wavemix_pl.training", __name__])
    listening, errors = context.Pipe(duplex=False)
    arguments = (str(folder), str(root), Events(last, Path("events"), what), tuple(options), errors)
    process = context.Process(target=_fit, args=arguments)
    process.start()
    errors.close()
    with os.fdopen(os.dup(listening.fileno()), errors="replace") as file:
        said = file.read()
    process.join(timeout=300)
    assert process.exitcode is not None
    return Ended(process.exitcode, said)


def fit(folder: Path, root: Path, options: Sequence[str] = (), last: int | None = None) -> bool:
    """Whether a run in `folder` came to its end; False if it was killed at the event `last`."""
    ended = run_until(folder, root, options, last)
    assert ended.code in (0, -signal.SIGKILL), ended.said
    return ended.code == 0


def count_events(folder: Path) -> int:
    return int((folder / "events").read_text())


def crash(
    folder: Path, root: Path, kills: Sequence[int], options: Sequence[str] = (), workers: Sequence[int] = (0,)
) -> int:
    """Kills a run after so many events each time, and then lets it come to its end. How often it was killed.

    Its parts have these numbers of workers, one after another.
    """
    numbers = cycle(workers)
    killed = sum(not fit(folder, root, (*options, f"--data.num_workers={next(numbers)}"), last) for last in kills)
    assert fit(folder, root, (*options, f"--data.num_workers={next(numbers)}"))
    return killed


def moments(seed: int, kills: int, events: int) -> list[int]:
    """After how many events to kill a run that has so many in all, so that the last kill falls about at its end."""
    draw = random.Random(seed)
    return [draw.randrange(1, max(2, 2 * events // kills)) for _ in range(kills)]


def outcome(folder: Path) -> dict[str, str]:
    """Hashes of what a run has left: of each part of its checkpoints, and of its metrics."""
    found = {"metrics.csv": hashlib.sha256((folder / RUN / "metrics.csv").read_bytes()).hexdigest()}
    for kind in ("best", "last"):
        checkpoint = torch.load(folder / RUN / "checkpoints" / f"{kind}.ckpt", weights_only=True)
        for part, value in checkpoint.items():
            digest = hashlib.sha256()
            _feed(digest, value, str(folder.resolve()))
            found[f"{kind} {part}"] = digest.hexdigest()
    return found


def _feed(digest: Any, value: Any, folder: str) -> None:
    if isinstance(value, dict):
        for key in value:
            digest.update(f"{key}".replace(folder, "").encode())
            _feed(digest, value[key], folder)
    elif isinstance(value, (list, tuple)):
        for part in value:
            _feed(digest, part, folder)
    elif isinstance(value, torch.Tensor):
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
        digest.update(value.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    else:
        digest.update(repr(value).replace(folder, "").encode())
