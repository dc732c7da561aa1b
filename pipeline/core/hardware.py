"""What the hardware offers: the device, loader processes, memory."""

import ctypes
import os
from typing import Literal

import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # as malloc.h numbers them


def device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def workers(setting: int | Literal["auto"], processes: int = 1) -> int:
    """Loader processes for each of ``processes``: the number given, or their share of the cores, up to 16."""
    return min(max(_cores() // processes, 1), 16) if setting == "auto" else setting


def keep_freed_memory() -> None:
    """Have glibc keep what a step frees for the next one, where it is glibc that gives out memory.

    By default it hands the top of its memory back to the system and asks for it again, page by page: on a CPU this is
    some hundredths of a step. Both limits belong together: the first alone stops glibc from raising the second, and
    every large array would come from the system.
    """
    try:
        set_limit = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    for limit in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
        set_limit(limit, 2**30)


def _cores() -> int:
    """Those that this process may use: a scheduler or ``taskset`` may have given it fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
