"""Where large tensors on a CPU get their memory from."""

from __future__ import annotations

import ctypes
import gc
import os
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of <malloc.h>
_LARGEST = 2**30


def keep_freed_memory() -> str:
    """Makes glibc keep the memory of freed tensors of up to a gigabyte for the next ones.

    As it stands glibc asks the kernel for each large tensor anew, and the kernel fills each page with zeros, which
    takes about a tenth of a training step (`experiments/README.md`). Who sets glibc's own variables decides: then this
    does nothing, as with other C libraries.

    Returns:
        What now holds, for reports.
    """
    chosen = {name: value for name, value in os.environ.items() if name.startswith("MALLOC_") or name == "LD_PRELOAD"}
    if chosen:
        return ", ".join(f"{name}={value}" for name, value in sorted(chosen.items()))
    if platform.libc_ver()[0] != "glibc":
        return "default"
    libc = ctypes.CDLL(None)
    kept = libc.mallopt(_MMAP_THRESHOLD, _LARGEST) and libc.mallopt(_TRIM_THRESHOLD, 2 * _LARGEST - 1)
    return "glibc, freed memory kept" if kept else "default"


def return_freed_memory() -> None:
    """Gives what was kept back to the system, where one process makes one model after the other."""
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
