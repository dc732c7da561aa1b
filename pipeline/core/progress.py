"""Progress of long tasks: a bar in a terminal, a line every ten seconds in a log file."""

import sys
from collections.abc import Iterable
from typing import NoReturn, TypeVar

from tqdm import tqdm

LOG_INTERVAL_S = 10.0

T = TypeVar("T")


class _LogLines:
    """A stream for tqdm that prints each redrawn bar as a separate line."""

    def write(self, text: str) -> None:
        if line := text.strip():
            print(line, file=sys.stderr)

    def flush(self) -> None:
        sys.stderr.flush()


def track(
    items: Iterable[T], what: str, *, total: int | None = None, unit: str = "samples", shown: bool = True
) -> "tqdm[T]":
    """Iterate over ``items``; if ``shown``, show on stderr how many are done, the rate and the remaining time."""
    return _bar(items, what, total, unit, shown, done=0)


def count(what: str, *, total: int, unit: str = "samples", shown: bool = True, done: int = 0) -> "tqdm[NoReturn]":
    """Show progress of work that is not a loop: a context manager whose ``update(n)`` reports n more items as done.

    ``done`` items were finished by an earlier run; they are not counted for the rate.
    """
    return _bar(None, what, total, unit, shown, done)


def say(line: str) -> None:
    """Print a line to stderr, above the progress bar if one is shown."""
    tqdm.write(line, file=sys.stderr)


def _bar(items: Iterable[T] | None, what: str, total: int | None, unit: str, shown: bool, done: int) -> "tqdm[T]":
    live = sys.stderr.isatty()
    return tqdm(  # type: ignore[return-value]  # the stubs do not allow None for items
        items,
        desc=what,
        total=total,
        unit=f" {unit}",
        file=sys.stderr if live else _LogLines(),
        mininterval=0.1 if live else LOG_INTERVAL_S,
        bar_format=None if live else "{desc}: {n_fmt}/{total_fmt}{unit}, {rate_fmt}, {remaining} left",
        dynamic_ncols=live,
        disable=not shown,
        initial=done,
    )
