"""What a model costs: seconds, floating-point operations, bytes."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

Key = TypeVar("Key", bound=Hashable)
Step = Callable[[], object]


def seconds_in_turns(
    steps: Mapping[Key, Step], device: torch.device, rounds: int, warm_up: int = 1
) -> dict[Key, list[float]]:
    """Times functions that take turns, so that a busy moment of the machine hits all alike.

    Args:
        steps: What to time, by name.
        device: Where they run.
        rounds: How often each is timed.
        warm_up: Rounds before that, which do not count.
    """
    seconds: dict[Key, list[float]] = {name: [] for name in steps}
    for round_ in range(warm_up + rounds):
        for name, step in steps.items():
            _wait(device)
            start = time.perf_counter()
            step()
            _wait(device)
            if round_ >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def flops(step: Step) -> int:
    """Floating-point operations of matrix products and convolutions, a multiplication and an addition as two."""
    count = _FlopCount()  # type: ignore[no-untyped-call]  # its base
    with count:
        step()
    return count.total


class _FlopCount(TorchDispatchMode):
    """torch's formulas. Its own counter follows modules with hooks, which a lean backward pass does not bear."""

    total: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula = flop_registry.get(func._overloadpacket)
        if formula is None:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        if formula is not None:
            self.total += formula(*args, **kwargs, out_val=out)
        return out


def convolution_peak(device: torch.device, dtype: torch.dtype) -> tuple[Step, int]:
    """A large convolution, with what no model's convolutions will be much faster, and its floating-point operations."""
    images = torch.randn(4, 256, 64, 64).to(device, dtype, memory_format=torch.channels_last)
    weight = torch.randn(256, 256, 3, 3).to(device, dtype, memory_format=torch.channels_last)

    def step() -> None:
        with torch.inference_mode():
            F.conv2d(images, weight, padding=1)

    return step, 2 * images.numel() * weight[:, 0].numel()


def saved_for_backward(forward: Callable[[], Tensor], model: nn.Module) -> int:
    """Bytes that the forward pass keeps for the backward pass, parameters and buffers apart."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        out = forward()  # alive until the end: freed storages would be used, and counted, again
    del out
    return sum(kept.values())


class PeakMemory:
    """Context: by how many bytes the memory in use grew, at most, within it.

    On a GPU that of tensors; on a CPU the resident memory of the process, so ask in a process that has not used
    and freed memory before. Attribute `bytes` is None where the system does not tell.
    """

    bytes: int | None = None

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __enter__(self) -> PeakMemory:
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before: int | None = torch.cuda.memory_allocated(self._device)
        else:
            self._before = _resident("VmRSS")
        return self

    def __exit__(self, *error: object) -> None:
        peak = peak_memory(self._device)
        if self._before is not None and peak is not None:
            self.bytes = peak - self._before


def peak_memory(device: torch.device) -> int | None:
    """Most bytes in use so far: of tensors on a GPU, of this process on a CPU; None where the system does not tell."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _resident("VmHWM")


def _resident(field: str) -> int | None:
    """A line of Linux' account of this process, in bytes."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    kilobytes = next((line.split()[1] for line in lines if line.startswith(f"{field}:")), None)
    return int(kilobytes) * 1024 if kilobytes else None
