"""Freed memory stays with the process, unless its user has other wishes."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from wavemix_pl.allocator import keep_freed_memory

_FAULTS = """
import resource, sys, torch
from wavemix_pl.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(2**23)  # 32 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc's")
def test_pages_are_used_again() -> None:
    """The kernel hands out the pages of a tensor once, not each time: 8,192 of them for 32 MiB."""
    kept, fresh = (
        int(subprocess.run([sys.executable, "-c", _FAULTS, how], capture_output=True, check=True, text=True).stdout)
        for how in ("keep", "as it is")
    )
    assert kept < 2000
    assert kept < fresh / 10


_RETURNED = """
import torch
from wavemix_pl.allocator import keep_freed_memory, return_freed_memory
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20
keep_freed_memory()
pinned = [tensor for _ in range(20) for tensor in (torch.ones(2**22), torch.ones(1))][1::2]  # 320 MiB, freed
before = resident()
return_freed_memory()
print(before - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc's")
def test_memory_can_be_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", _RETURNED], capture_output=True, check=True, text=True)
    assert float(done.stdout) > 200


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "LD_PRELOAD"])
def test_who_chose_otherwise_decides(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "2")
    assert keep_freed_memory() == f"{name}=2"
