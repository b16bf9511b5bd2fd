"""A row of the paper as the commands that anyone could type."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wavemix_pl.paper.provenance import hash_of
from wavemix_pl.paper.rows import Row, stem_of

# flags that change no number, or change it no more than the columns of a result tell
_NEUTRAL = re.compile(
    r"--(trainer\.(accelerator|devices|num_nodes|strategy|precision|enable_\w+|logger\b.*|log_every_n_steps|profiler)"
    r"|data\.(root|num_workers|download)|model\.(execution|compile|fuse)|debug)$"
)


@dataclass(frozen=True)
class Plan:
    """How rows are run.

    Attributes:
        recipe: Config names in the place of the row's own, or None.
        flags: For `wavemix-pl fit` and `test`, as `--name=value`.
        experiments: Folder of recipes and results.
        runs: Folder of the runs.
        benchmark_flags: For `wavemix-pl benchmark`.
        accept_generated: Whether numbers on generated images are recorded.
        again: Whether what is recorded, but whose run is not in `runs`, is trained and recorded once more.
    """

    recipe: tuple[str, ...] | None = None
    flags: tuple[str, ...] = ()
    experiments: Path = Path("experiments")
    runs: Path = Path("runs")
    benchmark_flags: tuple[str, ...] = ()
    accept_generated: bool = False
    again: bool = False

    @property
    def changes(self) -> str:
        """Those of the flags that can change a number."""
        return shlex.join(flag for flag in self.flags if not _NEUTRAL.match(flag.partition("=")[0].rstrip("+")))

    def recipe_of(self, row: Row) -> tuple[str, ...]:
        return self.recipe or row.recipe

    def directory(self, row: Row, seed: int) -> Path:
        """One for each row and seed; what changes a row's numbers has directories of its own."""
        recipe = self.recipe_of(row)
        changed = [hash_of([recipe, self.changes])[:6]] if recipe != row.recipe or self.changes else []
        name = "-".join([_slug(f"{row.group or ''} {row.row}"), *changed])
        return self.runs / stem_of(row.table) / name / f"seed{seed}"


def fit_command(row: Row, seed: int, plan: Plan) -> list[str]:
    """Trains a row's model, or goes on where it was interrupted."""
    return ["fit", *_of_row(row, plan), *_of_run(row, seed, plan), *plan.flags, "--trainer.callbacks+=Resources"]


def test_command(row: Row, seed: int, plan: Plan) -> list[str]:
    """Tests what `fit_command` has trained, with its best epoch."""
    best = plan.directory(row, seed) / "checkpoints" / "best.ckpt"
    options = [option for option in _of_run(row, seed, plan) if not option.startswith("--ckpt_path")]
    return ["test", *_of_row(row, plan), *options, f"--ckpt_path={best}", *plan.flags]


def _of_row(row: Row, plan: Plan) -> list[str]:
    assert row.data is not None  # of a row with a model: a test reads them all
    options = []
    for name in plan.recipe_of(row):
        options += ["--config", str(plan.experiments / "recipes" / f"{name}.yaml")]
    options.append(f"--data={row.data.kind}")
    options += [f"--data.{name}={value}" for name, value in {**row.data.options, **row.options}.items()]
    if row.image_size and row.image_size != row.data.image_size:
        options.append(f"--data.image_size=[{row.image_size[0]},{row.image_size[1]}]")
    options.append(f"--model.variant={row.model}")
    return options + [f"--model.overrides.{name}={value}" for name, value in row.overrides.items()]


def _of_run(row: Row, seed: int, plan: Plan) -> list[str]:
    backbone = [f"--model.backbone={row.backbone}"] if row.backbone else []
    directory = f"--trainer.default_root_dir={plan.directory(row, seed)}"
    return [*backbone, f"--seed_everything={seed}", directory, "--ckpt_path=last"]


def benchmark_command(row: Row, metric: str, plan: Plan, save: Path) -> list[str]:
    """Measures a resource column of a row."""
    assert row.data is not None
    assert row.image_size is not None
    options = [f"--task={row.task}", f"--num_classes={row.data.classes}", "--forms", "plain"]
    options += ["--image_sizes", f"{row.image_size[0]}x{row.image_size[1]}"]
    overrides = row.overrides if row.data.channels == 3 else {"in_channels": row.data.channels, **row.overrides}
    options += [f"--overrides.{name}={value}" for name, value in overrides.items()]
    options += [f"--{name}" if value is True else f"--{name}={value}" for name, value in row.benchmark[metric].items()]
    return ["benchmark", str(row.model), *options, *plan.benchmark_flags, f"--save={save}"]


def printable(command: Sequence[str]) -> str:
    """A command as it can be typed."""
    return shlex.join(["wavemix-pl", *command])


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-")
