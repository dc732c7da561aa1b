"""What the user's mistakes and signals raise, and how many problems become one message."""

import signal
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

EXAMPLES = 5
"""Places that a message names for each kind of problem before it counts the rest."""


class InputError(ValueError):
    """Something the user gave is wrong; the message says what, where and what to do."""


class Stopped(KeyboardInterrupt):
    """A signal asked the program to stop."""

    def __init__(self, by: signal.Signals) -> None:
        super().__init__(by)
        self.by = by


@contextmanager
def when_asked_to_stop(act: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Call ``act`` on Ctrl-C and SIGTERM while the block runs."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda by, _: act(signal.Signals(by)))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Problem(NamedTuple):
    """One fault in a source: ``where`` it is, and ``what`` is wrong and how to fix it; equal faults share ``what``."""

    where: str
    what: str


def raise_problems(folder: Path, problems: Iterable[Problem]) -> None:
    """Raise one error that reports all problems, or return if there are none.

    Raises:
        InputError: its message counts the problems of each kind and names the first few of each.
    """
    kinds: dict[str, list[str]] = defaultdict(list)
    for problem in problems:
        kinds[problem.what].append(problem.where)
    if not kinds:
        return
    total = sum(map(len, kinds.values()))
    lines = [f"{folder}: {total:,} problem{'s' if total > 1 else ''}; nothing was written"]
    for what, places in kinds.items():
        more = f", and {len(places) - EXAMPLES:,} more" if len(places) > EXAMPLES else ""
        lines.append(f"  {what}\n    {', '.join(places[:EXAMPLES])}{more}")
    raise InputError("\n".join(lines))
