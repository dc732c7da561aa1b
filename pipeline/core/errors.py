"""Exceptions for user errors and stop signals, and error messages that report many problems at once."""

import signal
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

EXAMPLES = 5
"""Number of locations that a message names per kind of problem; the others are only counted."""


class InputError(ValueError):
    """Invalid user input; the message says what is wrong, where, and how to fix it."""


class Stopped(KeyboardInterrupt):
    """The program was stopped by a signal."""

    def __init__(self, by: signal.Signals) -> None:
        super().__init__(by)
        self.by = by


@contextmanager
def when_asked_to_stop(act: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Call ``act`` with the signal on SIGINT (Ctrl-C) and SIGTERM while the block runs."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda by, _: act(signal.Signals(by)))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Problem(NamedTuple):
    """A problem of a source: ``where`` it is, and ``what`` is wrong and how to fix it.

    Problems with the same ``what`` are reported together.
    """

    where: str
    what: str


def raise_problems(folder: Path, problems: Iterable[Problem], outcome: str = "nothing was written") -> None:
    """Raise one error that reports all problems, and says what became of it; return if there are none.

    Raises:
        InputError: its message counts the problems of each kind and names the first few of each.
    """
    kinds: dict[str, list[str]] = defaultdict(list)
    for problem in problems:
        kinds[problem.what].append(problem.where)
    if not kinds:
        return
    total = sum(map(len, kinds.values()))
    lines = [f"{folder}: {total:,} problem{'s' if total > 1 else ''}; {outcome}"]
    for what, places in kinds.items():
        more = f", and {len(places) - EXAMPLES:,} more" if len(places) > EXAMPLES else ""
        lines.append(f"  {what}\n    {', '.join(places[:EXAMPLES])}{more}")
    raise InputError("\n".join(lines))
