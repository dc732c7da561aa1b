"""What the hardware offers: device, precision, loader processes."""

import ctypes
import os
from contextlib import AbstractContextManager
from typing import Literal

import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # as malloc.h numbers them
Precision = Literal["auto", "fp32", "bf16"]


def device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(precision: Precision) -> AbstractContextManager[object]:
    """Mixed precision for the forward pass: weights stay float32.

    ``auto`` is bf16 where the hardware multiplies it natively: GPUs from 2020 on, CPUs with AMX. Elsewhere bf16
    is emulated and slower than float32. bf16 has float32's range, so no loss scaling is needed.
    """
    kind = device().type
    if kind == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = bool(torch.cpu.get_capabilities().get("amx_bf16", False))
    enabled = precision == "bf16" or (precision == "auto" and native)
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=enabled)


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
