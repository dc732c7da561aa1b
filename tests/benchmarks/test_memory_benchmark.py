"""The memory benchmark counts what a process allocates, from the first tenth of an epoch to its end."""

from itertools import count
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap

import numpy as np
import pytest

from benchmarks import memory


def test_allocated_memory_is_counted() -> None:
    before = memory.private_memory_mb()
    # Straight from the system: an array could reuse memory that earlier tests of the process have freed.
    held = mmap(-1, 64 * 2**20, flags=MAP_PRIVATE | MAP_ANONYMOUS)
    np.frombuffer(held, np.uint8)[:] = 1
    assert memory.private_memory_mb() - before == pytest.approx(64, abs=16)


def test_growth_is_from_the_first_tenth_to_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    used = count()
    monkeypatch.setattr(memory, "private_memory_mb", lambda: float(next(used)))
    assert memory.main(samples=1000) == {"growth_mb_0_workers": 9.0, "growth_mb_2_workers": 9.0}
