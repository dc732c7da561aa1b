"""Settings that depend on the hardware: compute device, number of worker processes, memory allocation."""

import ctypes
import os
from typing import Literal

import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # from malloc.h


def device() -> torch.device:
    """The GPU if there is one, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def workers(setting: int | Literal["auto"], processes: int = 1) -> int:
    """Workers for each of ``processes`` processes: ``setting``, or for "auto" the share of the cores, 1 to 16."""
    return min(max(_cores() // processes, 1), 16) if setting == "auto" else setting


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for the next training step; without effect under other C libraries.

    By default, glibc returns freed memory to the system and requests it again page by page, which takes a few per cent
    of a training step on a CPU. Both limits have to be set: setting the first alone stops glibc from raising the
    second, and the system would allocate every large array.
    """
    try:
        set_limit = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    for limit in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
        set_limit(limit, 2**30)


def _cores() -> int:
    """Number of cores this process may use: a scheduler or ``taskset`` may allow fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
