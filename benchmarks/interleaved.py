"""Timing that survives a noisy machine: every case once a round, and ratios within the rounds."""

import gc
import json
import statistics
import time
from collections.abc import Callable, Mapping

import pandas as pd

Seconds = dict[str, list[float]]


def measure(cases: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 1) -> Seconds:
    """Time each case once a round, one after the other, so that a slow minute slows them all.

    Args:
        cases: what to run, by name.
        rounds: measured rounds.
        warm_up: rounds before those, not measured.

    Returns:
        Wall seconds of each case, one a round.
    """
    seconds: Seconds = {name: [] for name in cases}
    for round_ in range(-warm_up, rounds):
        for name, run in cases.items():
            gc.collect()
            started = time.perf_counter()
            run()
            if round_ >= 0:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def ratio(seconds: Seconds, over: str, under: str) -> float:
    """Median over the rounds of one case's time by another's."""
    return statistics.median(a / b for a, b in zip(seconds[over], seconds[under], strict=True))


def ratio_of_medians(seconds: Seconds, over: str, under: str) -> float:
    """One case's median time by another's."""
    return statistics.median(seconds[over]) / statistics.median(seconds[under])


def report(table: pd.DataFrame, figures: Mapping[str, object]) -> None:
    """Print a table to read and, last, one line of JSON for a program."""
    print(table.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    print(json.dumps(figures))
