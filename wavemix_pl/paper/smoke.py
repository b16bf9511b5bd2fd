"""Every stage of a row for one tiny step, on generated data: whether its command would run at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console

from wavemix_pl import data
from wavemix_pl.allocator import return_freed_memory
from wavemix_pl.data.generated import write_dataset
from wavemix_pl.models.published_weights import PublishedWeights, find_published
from wavemix_pl.models.wavemix import create_model
from wavemix_pl.paper.commands import Plan
from wavemix_pl.paper.reproduce import Runner
from wavemix_pl.paper.results import read_results, results_file
from wavemix_pl.paper.rows import Row

_SMALL = (32, 32)
# what makes a recipe long -> what makes it short, wherever it stands: two epochs, the second after any switch
_SHORT = {"max_epochs": 2, "epochs": 2, "final_epochs": 1, "patience": 1, "stop_patience": 1}
_SHORT |= {"warmup_epochs": 1, "cooldown_epochs": 0, "batch_size": 2, "num_workers": 0, "scenes": 20, "val_scenes": 10}
_FLAGS = [f"--trainer.limit_{stage}_batches=1" for stage in ("train", "val", "test")]
_FLAGS += ["--trainer.devices=1", "--trainer.enable_model_summary=false", "--trainer.enable_progress_bar=false"]


def smoke(rows: Sequence[Row], plan: Plan, training: bool = True, say: Callable[[str], None] = print) -> None:
    """Runs rows from start to recorded numbers, in a folder that is removed afterwards.

    WaveMix sees images of 32x32 pixels, peers those of their rows; batches have two images, recipes two epochs of one
    step. The numbers are recorded in the folder, to be forgotten with it.

    Args:
        rows: With models.
        plan: Whose flags are used as well.
        training: Whether rows are trained and tested, beside their benchmarks.
        say: Prints a line.

    Raises:
        SystemExit: A stage failed; the command has said why.
    """
    with tempfile.TemporaryDirectory(prefix="wavemix-smoke-") as folder, _weights_in(Path(folder, "weights")):
        place = Path(folder)
        _shorten_recipes(plan.experiments / "recipes", place / "experiments" / "recipes")
        for row in rows:
            assert row.data is not None  # of a row with a model
            if row.backbone:
                _write_backbone(find_published(row.backbone), place / "weights")
            small = replace(row, image_size=_smoke_size(row), benchmark=_short_benchmarks(row))
            here = replace(
                plan,
                flags=(*_FLAGS, *_generated_data(row.data.kind, place / "data"), *plan.flags),
                experiments=place / "experiments",
                runs=place / "runs",
                benchmark_flags=("--rounds=1",),
                accept_generated=True,
            )
            _run(small, here, training)
            shutil.rmtree(place / "runs", ignore_errors=True)  # checkpoints of large models
            return_freed_memory()
            say(f"{row}: every stage ran")


def _generated_data(kind: str, folder: Path) -> list[str]:
    """Flags for generated images in the place of a published data set; none for what comes with the package."""
    if getattr(data, kind).about is None:
        return []
    root = folder / kind
    if not root.exists():
        write_dataset(kind, root)
    return [f"--data.root={root}"]


def _run(row: Row, plan: Plan, training: bool) -> None:
    runner = Runner(plan, _in_this_process, say=Console(stderr=True, highlight=False, soft_wrap=True).print)
    if training:
        runner.train(row, seed=0)
    runner.benchmark(row)
    results, broken = read_results(results_file(plan.experiments, row.table))
    recorded = {result.metric for result in results if result.belongs_to(row)}
    # two tiny batches may take the same memory, which tells nothing of the largest
    wanted = {*row.benchmark, *({row.score} if training else ())} - {"largest_batch"}
    if broken or wanted - recorded:
        raise RuntimeError(f"{row}: {', '.join(sorted(wanted - recorded))} not recorded")


def _in_this_process(command: list[str]) -> int:
    from wavemix_pl.cli import main  # which imports the verbs

    return main(command)


def _is_wavemix(row: Row) -> bool:
    return str(row.model).casefold().startswith("wavemix")


def _smoke_size(row: Row) -> tuple[int, int] | None:
    if row.task == "segmentation":
        return (_SMALL[0], 2 * _SMALL[1])
    if _is_wavemix(row) and row.image_size and min(row.image_size) > _SMALL[0]:
        return _SMALL
    return row.image_size


def _short_benchmarks(row: Row) -> dict[str, dict[str, Any]]:
    return {
        metric: {**options, **({"batch_size": 2} if "batch_size" in options else {})}
        for metric, options in row.benchmark.items()
    }


def _shorten_recipes(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for path in source.glob("*.yaml"):
        (target / path.name).write_text(yaml.safe_dump(_shortened(yaml.safe_load(path.read_text())), sort_keys=False))


def _shortened(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _SHORT[key] if key in _SHORT and value else _shortened(value) for key, value in content.items()}
    return [_shortened(entry) for entry in content] if isinstance(content, list) else content


def _write_backbone(entry: PublishedWeights, folder: Path) -> None:
    """Random weights in the place of published ones."""
    path = folder / entry.file
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(create_model(entry.config, entry.num_classes, entry.task).state_dict(), path)


@contextmanager
def _weights_in(folder: Path) -> Iterator[None]:
    """Published weights are looked for in a folder first."""
    before = os.environ.get("WAVEMIX_PL_WEIGHTS")
    os.environ["WAVEMIX_PL_WEIGHTS"] = str(folder)
    try:
        yield
    finally:
        del os.environ["WAVEMIX_PL_WEIGHTS"]
        if before is not None:
            os.environ["WAVEMIX_PL_WEIGHTS"] = before
