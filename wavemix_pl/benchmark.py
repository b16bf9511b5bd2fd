"""The verb `benchmark`: what models cost, side by side in one process."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any, cast

import torch

from wavemix_pl.allocator import keep_freed_memory
from wavemix_pl.benchmark_results import Result, print_results
from wavemix_pl.errors import InputError
from wavemix_pl.machine import choose_device, describe
from wavemix_pl.measurement import Step, convolution_peak, flops, saved_for_backward, seconds_in_turns
from wavemix_pl.parser import Parser
from wavemix_pl.workload import Case, Form, Precision, Task, Workload, largest_batch, peak_memory_gb

_SIZES: dict[Task, list[str]] = {
    "classification": ["224x224"],
    "segmentation": ["256x512", "512x1024", "1024x2048"],  # Table 6
}
_CLASSES: dict[Task, int] = {"classification": 1000, "segmentation": 19}


def benchmark(
    models: list[str],
    task: Task = "classification",
    training: bool = False,
    forms: list[Form] | None = None,
    precisions: list[Precision] | None = None,
    image_sizes: list[str] | None = None,
    batch_size: int = 1,
    num_classes: int | None = None,
    overrides: dict[str, Any] | None = None,
    vary: dict[str, Any] | None = None,
    channels_last: bool = True,
    device: str = "auto",
    rounds: int = 5,
    memory: bool = False,
    memory_budget_gb: float | None = None,
) -> list[Result]:
    """Measures models on random images. They take turns, so that a busy moment of the machine hits all alike.

    Args:
        models: In the paper's notation, such as "WaveMix-256/16 (level 4)"; or a model of timm, such as "resnet50".
        task: Which head the models have.
        training: Whether a step is forward, backward and optimizer (AdamW), or inference.
        forms: In inference of plain, fused, compiled, published; in training of plain, fast, lean, checkpointed,
            compiled, published. Default: plain and fused, or plain, fast and lean. Peers have plain and compiled.
        precisions: Default: float32. In training a smaller one means autocast. "published" is float32 always.
        image_sizes: Each as "HxW". Default: 224x224; for segmentation the three of the paper's Table 6.
        batch_size: Images at a time.
        num_classes: Default: 1000, for segmentation 19.
        overrides: Fields of `WaveMixConfig`, such as {"stem": "patchify"}, of which peers take in_channels only; of
            peers alone their own arguments.
        vary: Such fields with lists of values, {"wavelet": ["db1", "db2"]}: each model is measured with every value.
        channels_last: Whether the channels of a pixel lie side by side in memory; not in "published".
        device: "cpu", "cuda", or "auto", which takes a GPU where there is one.
        rounds: How often each is timed, after one time that does not count.
        memory: Whether to measure memory as well, each model in a process of its own.
        memory_budget_gb: For which to find the largest batch, in the same way.

    Raises:
        InputError: A notation, size or number that cannot be used.
    """
    if min(batch_size, rounds) < 1:
        raise InputError(f"batch_size and rounds must be at least 1, got {batch_size}, {rounds}")
    if memory_budget_gb is not None and not memory_budget_gb > 0:
        raise InputError(f"memory_budget_gb must be above 0, got {memory_budget_gb}")
    place = choose_device(device)
    common: dict[str, Any] = {
        **{"task": task, "training": training, "batch_size": batch_size},
        **{"channels_last": channels_last, "device": place.type, "num_classes": num_classes or _CLASSES[task]},
    }
    cases = [
        Case(
            name,
            form,
            precision,
            _size(size),
            overrides=_overrides(name, models, {**(overrides or {}), **varied}),
            **common,
        )
        for name, size in product(models, image_sizes or _SIZES[task])
        for varied in _variants(name, models, vary or {})
        for precision in precisions or ["float32"]
        for form in _forms(name, training, forms)
        if form != "published" or precision == "float32"
    ]
    if not cases:
        raise InputError("nothing to measure: 'published' is there in float32 only")
    return _measure([Workload(case) for case in cases], [*(vary or {})], rounds, memory, memory_budget_gb)


def _is_wavemix(model: str) -> bool:
    return model.lower().strip().startswith("wavemix")


def _overrides(model: str, models: Sequence[str], overrides: dict[str, Any]) -> dict[str, Any]:
    """Of a peer beside WaveMix the channels of its images only."""
    if _is_wavemix(model) or not any(map(_is_wavemix, models)):
        return overrides
    return {name: value for name, value in overrides.items() if name == "in_channels"}


def _variants(model: str, models: Sequence[str], vary: dict[str, Any]) -> list[dict[str, Any]]:
    """One value of each field, in all combinations; nothing for peers beside WaveMix."""
    for name, values in vary.items():
        if not isinstance(values, list) or not values:
            raise InputError(f"vary.{name} must be a list of values, such as [1,2], got {values!r}")
    if not _is_wavemix(model) and any(map(_is_wavemix, models)):
        return [{}]
    return [dict(zip(vary, values, strict=True)) for values in product(*vary.values())]


def _forms(model: str, training: bool, forms: Sequence[Form] | None) -> Sequence[Form]:
    if not _is_wavemix(model):
        return [form for form in forms or ["plain"] if form in ("plain", "compiled")]
    default: list[Form] = ["plain", "fast", "lean"] if training else ["plain", "fused"]
    return forms or default


def _measure(
    workloads: list[Workload], vary: list[str], rounds: int, memory: bool, memory_budget_gb: float | None
) -> list[Result]:
    device = workloads[0].device
    peaks = {name: convolution_peak(device, getattr(torch, name)) for name in {w.case.precision for w in workloads}}
    steps: dict[int | str, Step] = {name: step for name, (step, _) in peaks.items()}
    steps |= dict(enumerate(workload.step for workload in workloads))
    seconds = seconds_in_turns(steps, device, rounds)
    best = {name: operations / min(seconds[name]) for name, (_, operations) in peaks.items()}
    first: dict[tuple[str, tuple[int, int]], float] = {}
    first_logits: dict[str, torch.Tensor] = {}
    results = []
    for i, workload in enumerate(workloads):
        case, median, ms = workload.case, statistics.median(seconds[i]), [1000 * value for value in seconds[i]]
        base = first.setdefault((case.model, case.image_size), median)
        difference = None
        if not case.training:
            logits = workload.forward().float()
            same = first_logits.setdefault(f"{case.model} {case.image_size} {case.overrides}", logits)
            difference = float((logits - same).abs().max())
        per_second = None if case.form == "compiled" else flops(workload.step) / median
        result = Result(
            model=case.model,
            varied={name: case.overrides[name] for name in vary if name in case.overrides},
            form=case.form,
            precision=case.precision,
            image_size="x".join(map(str, case.image_size)),
            params_m=workload.params / 1e6,
            images_per_s=case.batch_size / median,
            ms=1000 * median,
            ms_min=min(ms),
            ms_max=max(ms),
            ratio=base / median,
            gflops_per_s=None if per_second is None else per_second / 1e9,
            share_of_peak=None if per_second is None else per_second / best[case.precision],
            difference=difference,
            saved_mb=saved_for_backward(workload.forward, workload.model) / 1e6 if case.training else None,
            memory_gb=peak_memory_gb(case) if memory else None,
            largest_batch=largest_batch(case, memory_budget_gb) if memory_budget_gb else None,
        )
        results.append(result)
    return results


def _size(text: str) -> tuple[int, int]:
    """Height and width.

    >>> _size("256x512")
    (256, 512)
    """
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", text):
        raise InputError(f"image size {text!r} is not of the form HxW, such as 256x512")
    height, width = text.split("x")
    return int(height), int(width)


def run(arguments: list[str]) -> None:
    """The verb `benchmark`: prints a table, or with `--json` an object {"machine", "options", "results"}."""
    parser = Parser(prog="wavemix-pl benchmark", description="What models cost in time and memory, side by side.")
    parser.add_argument("models", nargs="+", help="In the paper's notation, such as 'WaveMix-256/16 (level 4)'.")
    lists = {"forms": "FORM", "precisions": "PRECISION", "image_sizes": "HxW"}
    for name, metavar in lists.items():
        parser.add_argument(f"--{name}", nargs="+", metavar=metavar, help="One or more, as said above.")
    flags = {
        "training": "Training steps instead of inference.",
        "memory": "Measure memory as well; takes longer.",
    }
    for name, what in flags.items():
        parser.add_argument(f"--{name}", action="store_true", help=what)
    parser.add_function_arguments(benchmark, skip={"models", *lists, *flags})
    parser.add_argument("--json", action="store_true", help="Print JSON instead of a table.")
    parser.add_argument("--save", metavar="FILE", help="Write the JSON to a file as well.")
    options = parser.parse_args(arguments[1:]).as_dict()
    as_json, save = options.pop("json"), options.pop("save")
    if save and not Path(save).absolute().parent.is_dir():
        raise InputError(f"--save: {Path(save).parent} is no folder: make it first")
    allocator = keep_freed_memory()
    results = benchmark(**options)
    machine = {**describe(choose_device(cast(str, options["device"]))), "allocator": allocator}
    entries = [asdict(result) for result in results]
    content = json.dumps({"machine": machine, "options": options, "results": entries}, indent=2)
    if save:
        Path(save).write_text(content + "\n")
    if as_json:
        print(content)
    else:
        print_results(results, machine, options)
