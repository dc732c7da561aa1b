"""The benchmark of the loader's memory runs at toy size."""

import math

from benchmarks import memory


def test_memory() -> None:
    figures = memory.main(samples=1000)
    assert set(figures) == {"growth_mb_0_workers", "growth_mb_2_workers"}
    assert all(math.isfinite(growth) for growth in figures.values())  # how much is for a whole epoch to show
