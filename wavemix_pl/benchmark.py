"""How many images a second models take, side by side in one process: the verb `benchmark`."""

from __future__ import annotations

import json
import platform
import re
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, cast

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from wavemix_pl.errors import InputError
from wavemix_pl.models.baselines import build_model
from wavemix_pl.parser import Parser

Task = Literal["classification", "segmentation"]
Precision = Literal["float32", "bfloat16", "float16"]

_SIZES: dict[Task, list[str]] = {
    "classification": ["224x224"],
    "segmentation": ["256x512", "512x1024", "1024x2048"],  # Table 6
}
_CLASSES: dict[Task, int] = {"classification": 1000, "segmentation": 19}


@dataclass(frozen=True)
class Throughput:
    """Inference of one model at one image size.

    Attributes:
        model: In the paper's notation.
        image_size: "HxW".
        params_m: Millions of parameters.
        images_per_s: At the median time; of one image at a time, the paper's FPS.
        ms: Median time of a batch, in milliseconds.
        ms_min: The shortest.
        ms_max: The longest.
    """

    model: str
    image_size: str
    params_m: float
    images_per_s: float
    ms: float
    ms_min: float
    ms_max: float


def throughput(
    models: list[str],
    task: Task = "classification",
    image_sizes: list[str] | None = None,
    batch_size: int = 1,
    num_classes: int | None = None,
    stem: Literal["strided", "patchify"] | None = None,
    precision: Precision = "float32",
    channels_last: bool = True,
    device: str = "auto",
    rounds: int = 5,
) -> list[Throughput]:
    """Measures inference on random images. The models take turns, so that a busy moment of the machine hits all alike.

    Args:
        models: In the paper's notation, such as "WaveMix-256/16 (level 4)".
        task: Which head the models have.
        image_sizes: Each as "HxW". Default: 224x224; for segmentation the three of the paper's Table 6.
        batch_size: Images at a time.
        num_classes: Default: 1000, for segmentation 19.
        stem: Default: the task's, as in `create_model`.
        precision: Of the weights and the images.
        channels_last: Whether the channels of a pixel lie side by side in memory.
        device: "cpu", "cuda", or "auto", which takes a GPU where there is one.
        rounds: How often each is timed, after one time that does not count.

    Raises:
        InputError: A notation, size or number that cannot be used.
    """
    if min(batch_size, rounds) < 1:
        raise InputError(f"batch_size and rounds must be at least 1, got {batch_size}, {rounds}")
    place = _device(device)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    dtype = getattr(torch, precision)
    overrides = {"stem": stem} if stem else {}
    built = {}
    for name in models:
        model = build_model(name, num_classes or _CLASSES[task], task, overrides)
        built[name] = model.eval().to(place, dtype).to(memory_format=layout)
    sizes = {text: _size(text) for text in image_sizes or _SIZES[task]}
    times: dict[tuple[str, str], list[float]] = {(name, size): [] for name in built for size in sizes}
    for round_ in range(rounds + 1):
        for (name, size), measured in times.items():
            images = torch.rand(batch_size, 3, *sizes[size]).to(place, dtype, memory_format=layout)
            seconds = _time(built[name], images)
            if round_:
                measured.append(seconds)
    return [_summary(built[name], name, size, batch_size, measured) for (name, size), measured in times.items()]


def _summary(model: nn.Module, name: str, size: str, batch_size: int, seconds: list[float]) -> Throughput:
    median, ms = statistics.median(seconds), [1000 * value for value in seconds]
    params = sum(parameter.numel() for parameter in model.parameters())
    return Throughput(name, size, params / 1e6, batch_size / median, 1000 * median, min(ms), max(ms))


def _time(model: nn.Module, images: torch.Tensor) -> float:
    """Seconds of one batch."""
    on_gpu = images.device.type == "cuda"
    with torch.inference_mode():
        if on_gpu:
            torch.cuda.synchronize()
        start = time.perf_counter()
        model(images)
        if on_gpu:
            torch.cuda.synchronize()
    return time.perf_counter() - start


def _device(name: str) -> torch.device:
    if name not in ("auto", "cpu", "cuda"):
        raise InputError(f"device must be auto, cpu or cuda, got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device is cuda, but torch finds no GPU here: pass --device=cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


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
    parser = Parser(prog="wavemix-pl benchmark", description="Images a second in inference, side by side.")
    parser.add_argument("models", nargs="+", help="In the paper's notation, such as 'WaveMix-256/16 (level 4)'.")
    parser.add_argument("--image_sizes", nargs="+", metavar="HxW", help="Default: 224x224; for segmentation Table 6's.")
    parser.add_function_arguments(throughput, skip={"models", "image_sizes"})
    parser.add_argument("--json", action="store_true", help="Print JSON instead of a table.")
    options = parser.parse_args(arguments[1:]).as_dict()
    as_json = options.pop("json")
    results = throughput(**options)
    machine = _machine(_device(cast(str, options["device"])))
    if as_json:
        entries = [asdict(result) for result in results]
        print(json.dumps({"machine": machine, "options": options, "results": entries}, indent=2))
    else:
        _print(results, machine, options["batch_size"], options["precision"])


def _machine(device: torch.device) -> dict[str, str | int]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {"device": name, "threads": torch.get_num_threads(), "torch": str(torch.__version__)}


def _processor() -> str:
    try:  # platform.processor() is empty on most Linux systems
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def _print(results: Sequence[Throughput], machine: dict[str, str | int], batch_size: int, precision: str) -> None:
    table = Table("model", "image size", "parameters", "images/s", "ms per batch", "shortest ... longest")
    for column in table.columns[2:]:
        column.justify = "right"
    for r in results:
        spread = f"{r.ms_min:.1f} ... {r.ms_max:.1f}"
        table.add_row(r.model, r.image_size, f"{r.params_m:.2f} M", f"{r.images_per_s:.2f}", f"{r.ms:.1f}", spread)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    device = f"{machine['device']}, {machine['threads']} CPU threads, torch {machine['torch']}"
    console.print(f"{device}, {precision}, batches of {batch_size}", highlight=False)
