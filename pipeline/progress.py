"""Progress of long work: a live bar in a terminal, a line every ten seconds in a log."""

import sys
from collections.abc import Iterable
from typing import NoReturn, TypeVar

from tqdm import tqdm

T = TypeVar("T")

LOG_INTERVAL_S = 10.0


def track(items: Iterable[T], what: str, *, total: int | None = None, unit: str = "samples") -> "tqdm[T]":
    """Iterate over ``items``, showing how many are done, the rate and the time left on stderr."""
    return _bar(items, what, total, unit)


def count(what: str, *, total: int, unit: str = "samples") -> "tqdm[NoReturn]":
    """The same for work that is no iteration: a context manager whose ``update(n)`` says that n more are done."""
    return _bar(None, what, total, unit)


def _bar(items: Iterable[T] | None, what: str, total: int | None, unit: str) -> "tqdm[T]":
    live = sys.stderr.isatty()
    return tqdm(  # type: ignore[return-value]  # the stubs know only the case with items
        items,
        desc=what,
        total=total,
        unit=f" {unit}",
        mininterval=0.1 if live else LOG_INTERVAL_S,
        # A log keeps every refresh as a line of its own, so it gets no bar and few refreshes.
        bar_format=None if live else "{desc}: {n_fmt}/{total_fmt}{unit}, {rate_fmt}, {remaining} left\n",
        dynamic_ncols=live,
    )
