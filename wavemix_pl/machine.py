"""Which machine this is, for reports."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import torch

from wavemix_pl.errors import InputError


def choose_device(name: str) -> torch.device:
    """What a name stands for; "auto" is a GPU where there is one."""
    if name not in ("auto", "cpu", "cuda"):
        raise InputError(f"device must be auto, cpu or cuda, got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device is cuda, but torch finds no GPU here: pass --device=cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def describe(device: torch.device) -> dict[str, str | int]:
    """Name of the device, threads, version of torch."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {"device": name, "threads": torch.get_num_threads(), "torch": str(torch.__version__)}


def _processor() -> str:
    try:  # platform.processor() is empty on most Linux systems
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()
