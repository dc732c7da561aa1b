"""Progress of long work: a live bar in a terminal, a line every ten seconds in a log."""

import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")

LOG_INTERVAL_S = 10.0


def track(items: Iterable[T], what: str, *, total: int | None = None, unit: str = "samples") -> "tqdm[T]":
    """Iterate over ``items``, showing how many are done, the rate and the time left on stderr."""
    live = sys.stderr.isatty()
    return tqdm(
        items,
        desc=what,
        total=total,
        unit=f" {unit}",
        mininterval=0.1 if live else LOG_INTERVAL_S,
        # A log keeps every refresh as a line of its own, so it gets no bar and few refreshes.
        bar_format=None if live else "{desc}: {n_fmt}/{total_fmt}{unit}, {rate_fmt}, {remaining} left\n",
        dynamic_ncols=live,
    )
