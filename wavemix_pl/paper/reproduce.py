"""The verb `reproduce`: a row of the paper -> the commands that anyone could type -> recorded numbers."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wavemix_pl.errors import InputError
from wavemix_pl.models.published_weights import resolve
from wavemix_pl.paper.catalog import experiments_folder, find_rows, find_table
from wavemix_pl.paper.commands import Plan, benchmark_command, fit_command, printable, test_command
from wavemix_pl.paper.provenance import hash_of, origin
from wavemix_pl.paper.results import SCORES, Ledger, Result, append_results, results_file
from wavemix_pl.paper.rows import Row
from wavemix_pl.parser import Parser
from wavemix_pl.run_directory import lock_directory

Execute = Callable[[list[str]], int]

_OURS = ("ckpt_path", "seed_everything", "trainer.default_root_dir", "model.variant", "model.backbone", "data", "model")


@dataclass(frozen=True)
class Runner:
    """Runs rows by a plan.

    Attributes:
        plan: How.
        execute: Runs a command line of wavemix-pl, and returns its exit code.
        say: Prints a line.
    """

    plan: Plan
    execute: Execute
    say: Callable[[str], None] = print

    def train(self, row: Row, seed: int) -> None:
        """Trains and tests a row with a seed, and records its numbers; what is recorded already only for `again`."""
        file, plan = results_file(self.plan.experiments, row.table), self.plan
        recipe, changes = "+".join(plan.recipe_of(row)), plan.changes
        done = ((result.recipe, result.flags, result.seed) for result in Ledger(plan.experiments).of(row))
        directory = plan.directory(row, seed)
        report = directory / "resources.json"  # written when a run is complete
        if (recipe, changes, str(seed)) in done and (report.exists() or not plan.again):
            again = f"remove {directory} to repeat it" if report.exists() else "--again repeats it"
            self.say(f"{row}, seed {seed}: recorded already; {again}")
            return
        if row.backbone:
            resolve(row.backbone)  # fetched, or refused, before anything runs
        lock = lock_directory(directory, ".reproduce.lock")
        try:
            if not report.exists():
                self._run(fit_command(row, seed, plan))
            self._run(test_command(row, seed, plan))
            results = _of_training(row, seed, plan, directory)
            append_results(file, results)
        finally:
            lock.release()
        for result in results:
            self.say(f"{row}, seed {seed}: {result.metric} {result.value:.6g}, recorded in {file}")

    def benchmark(self, row: Row) -> None:
        """Measures a row's resource columns on this machine, and records them; not what is recorded already."""
        file = results_file(self.plan.experiments, row.table)
        for metric in row.benchmark:
            device = origin(self.plan.experiments)["device"]
            if any((r.metric, r.device) == (metric, device) for r in Ledger(self.plan.experiments).of(row)):
                self.say(f"{row}: {metric} of this device is recorded already")
                continue
            folder = self.plan.directory(row, 0).parent
            save = folder / f"{metric}.json"
            folder.mkdir(parents=True, exist_ok=True)
            self._run(benchmark_command(row, metric, self.plan, save))
            result = _of_benchmark(row, metric, self.plan, save)
            if result is None:
                self.say(f"{row}: {metric} cannot be measured here")
                continue
            append_results(file, [result])
            self.say(f"{row}: {metric} {result.value:.6g}, recorded in {file}")

    def _run(self, command: list[str]) -> None:
        self.say(f"$ {printable(command)}")
        code = self.execute(command)
        if code:
            raise SystemExit(code)  # the command has said why


def _of_training(row: Row, seed: int, plan: Plan, directory: Path) -> list[Result]:
    """What a run's files say."""
    config = hash_of(directory / "config.yaml")
    resources = json.loads((directory / "resources.json").read_text())
    test = json.loads((directory / "test.json").read_text())
    if test["generated"] and not plan.accept_generated:
        raise InputError(f"{directory} was tested on generated images: nothing is recorded; pass the real --data.root")
    scores: dict[str, float] = test["metrics"]
    values = {name.removeprefix("test_"): 100 * value for name, value in scores.items()}  # percent, as printed
    values["epoch_s"] = resources["epoch_s"]
    wanted = [metric for metric in SCORES if metric in values] + [m for m in ("epoch_s",) if m in row.columns]
    device = resources["device"] if resources["devices"] == 1 else f"{resources['devices']} x {resources['device']}"
    common = {
        **_names(row),
        "recipe": "+".join(plan.recipe_of(row)),
        "flags": plan.changes,
        "seed": str(seed),
        "epochs": str(resources["epochs"]),
        "wall_s": round(resources["wall_s"], 1),
        "precision": resources["precision"],
        "batch_size": str(resources["batch_size"]),
        **origin(plan.experiments),
        "device": device,
        "config_hash": config,
        "run": str(directory),
    }
    return [Result(metric=metric, value=values[metric], **common) for metric in wanted]


def _of_benchmark(row: Row, metric: str, plan: Plan, save: Path) -> Result | None:
    """What a benchmark's file says, if it could measure this."""
    content = json.loads(save.read_text())
    measured = content["results"][0]
    value = measured[metric if metric in ("memory_gb", "largest_batch") else "images_per_s"]
    if value is None:
        return None
    return Result(
        **_names(row),
        metric=metric,
        value=value,
        recipe="benchmark",
        flags=shlex.join(plan.benchmark_flags),
        seed="",
        epochs="",
        wall_s=round(measured["ms"] / 1000, 4),
        precision=measured["precision"],
        batch_size=str(content["options"]["batch_size"]),
        **{**origin(plan.experiments), "device": content["machine"]["device"]},
        config_hash=hash_of(content["options"]),
        run="-",
    )


def _names(row: Row) -> dict[str, Any]:
    return {"table": str(row.table), "group": row.group or "", "row": row.row}


def run_in_own_process(command: list[str]) -> int:
    """A command line of wavemix-pl, as if it were typed."""
    return subprocess.run([sys.executable, "-m", "wavemix_pl", *command], check=False).returncode


def run(arguments: list[str]) -> None:
    """The verb `reproduce`."""
    parser = Parser(
        prog="wavemix-pl reproduce",
        description="Trains, tests and measures rows of a table, and records the numbers in experiments/results. What "
        "is recorded there is skipped unless --again is given, what was interrupted goes on. Further options are those "
        "of 'wavemix-pl fit', such as --trainer.precision=16-mixed or --data.root=FOLDER.",
    )
    parser.add_argument("table", help="1 to 14, a section with numbers of its own (4.3, 4.6), or one of ours.")
    parser.add_argument("--row", help="Its label, as printed; default: all rows.")
    parser.add_argument("--group", help="The part of the table in which it stands.")
    parser.add_argument("--seeds", type=int, default=3, help="How many runs, with seeds 0, 1, ...")
    parser.add_argument("--recipe", help="Configs in the place of the row's own, joined by '+', such as as-published.")
    parser.add_argument("--stage", default="all", help="train, benchmark (all resource columns, or name one), or all.")
    parser.add_argument("--runs", default="runs", help="Folder of the runs.")
    parser.add_argument("--again", action="store_true", help="Also what is recorded, but whose run is not in --runs.")
    parser.add_argument("--dry-run", action="store_true", help="Print the commands, and run nothing.")
    parser.add_argument("--smoke", action="store_true", help="Every stage for one tiny step on generated data.")
    own, flags = split_arguments(arguments[1:])
    options = parser.parse_args(own)
    if options.seeds < 1:
        raise InputError(f"--seeds must be at least 1, got {options.seeds}")
    rows = _for_stage(find_rows(find_table(options.table), options.row, options.group), options.stage)
    plan = Plan(
        recipe=tuple(options.recipe.split("+")) if options.recipe else None,
        flags=tuple(flags),
        experiments=_relative(experiments_folder()),
        runs=Path(options.runs),
        again=options.again,
    )
    for name in {name for row in rows if row.model for name in plan.recipe_of(row)}:
        if not (file := plan.experiments / "recipes" / f"{name}.yaml").is_file():
            known = ", ".join(sorted(path.stem for path in file.parent.glob("*.yaml")))
            raise InputError(f"there is no recipe {name!r}; known are {known}")
    for row in rows:
        if row.model is None:
            print(f"{row}: reported only ({row.reported})", file=sys.stderr)
    rows = [row for row in rows if row.model]
    training = range(options.seeds) if options.stage in ("all", "train") else range(0)
    if options.dry_run:
        print("\n".join(printable(command) for command in _commands(rows, plan, training)))
    elif options.smoke:
        from wavemix_pl.paper.smoke import smoke

        smoke(rows, plan, bool(training))
    else:
        runner = Runner(plan, run_in_own_process)
        for row in rows:
            for seed in training:
                runner.train(row, seed)
            runner.benchmark(row)


def _for_stage(rows: Sequence[Row], stage: str) -> list[Row]:
    """The rows with no more benchmarks than a stage has."""
    if stage in ("all", "benchmark"):
        return list(rows)
    columns = list(dict.fromkeys(metric for row in rows for metric in row.benchmark))
    if stage not in ("train", *columns):
        raise InputError(f"--stage must be one of {', '.join(['all', 'train', 'benchmark', *columns])}, got {stage!r}")
    return [replace(row, benchmark={m: o for m, o in row.benchmark.items() if m == stage}) for row in rows]


def _commands(rows: Sequence[Row], plan: Plan, seeds: Sequence[int]) -> list[list[str]]:
    commands = []
    for row in rows:
        for seed in seeds:
            commands += [fit_command(row, seed, plan), test_command(row, seed, plan)]
        for metric in row.benchmark:
            commands.append(benchmark_command(row, metric, plan, plan.directory(row, 0).parent / f"{metric}.json"))
    return commands


_VALUED = ("--row", "--group", "--seeds", "--recipe", "--stage", "--runs")
_SWITCHES = ("--again", "--dry-run", "--dry_run", "--smoke", "--help", "-h")


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The verb's own arguments, and those for `fit`, the latter as `--name=value`.

    >>> split_arguments(["5", "--row", "A B", "--trainer.max_epochs", "3", "--smoke"])
    (['5', '--row', 'A B', '--smoke'], ['--trainer.max_epochs=3'])
    """
    own: list[str] = []
    flags: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        name, equals, _ = word.partition("=")
        if name in _SWITCHES:
            own.append(word.replace("_", "-"))
        elif name in _VALUED or not word.startswith("-"):
            own += [word, *([rest.pop(0)] if name in _VALUED and not equals and rest else [])]
        else:
            if name.lstrip("-").rstrip("+") in _OURS:
                raise InputError(f"{name} is told by the row: leave it out")
            flags.append(word if equals or not rest or rest[0].startswith("--") else f"{word}={rest.pop(0)}")
    return own, flags


def _relative(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
