"""Timing on a noisy machine: interleaved rounds, and ratios within each round."""

import gc
import json
import statistics
import time
from collections.abc import Callable, Mapping

import pandas as pd

Seconds = dict[str, list[float]]


def measure(cases: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 1) -> Seconds:
    """Time every case once per round, so that background load affects all cases alike.

    Args:
        cases: functions to time, by name.
        rounds: measured rounds.
        warm_up: rounds before them that are not measured.

    Returns:
        Wall-clock seconds of each case, one value per round.
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
    """Median over the rounds of the ratio of two cases' times."""
    return statistics.median(a / b for a, b in zip(seconds[over], seconds[under], strict=True))


def ratio_of_medians(seconds: Seconds, over: str, under: str) -> float:
    """Ratio of two cases' median times."""
    return statistics.median(seconds[over]) / statistics.median(seconds[under])


def report(table: pd.DataFrame, figures: Mapping[str, object]) -> None:
    """Print a table and, as the last line, the figures as JSON."""
    print(table.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    print(json.dumps(figures))
