"""How a stage ends when its input is at fault or somebody stops it: one message, an exit code, no traceback."""

import errno
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.clock import timed


class InputError(ValueError):
    """Something the user gave is wrong; the message says what, where and what to do."""


class Stopped(KeyboardInterrupt):
    """A signal asked the program to stop."""

    def __init__(self, by: signal.Signals) -> None:
        super().__init__(by)
        self.by = by


@contextmanager
def when_asked_to_stop(act: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Call ``act`` at Ctrl-C and SIGTERM while the block runs."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda by, _: act(signal.Signals(by)))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_stage(main: Callable[[], None]) -> None:
    """Run a stage's ``main`` and turn the user's problems into a message and an exit code.

    Bad input ends with code 1; Ctrl-C ends with 130 and SIGTERM with 143, as shells expect. Any other
    exception is a defect of ours and keeps its traceback.
    """
    try:
        with when_asked_to_stop(_stop), timed():
            main()
    except InputError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        where = f"{error.filename}: " if error.filename else ""
        remedy = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "get the right to write there"
        sys.exit(f"error: {where}{error.strerror}: {remedy} or choose another disk, then run the command again")
    except KeyboardInterrupt as error:
        by = error.by if isinstance(error, Stopped) else signal.SIGINT
        print(f"stopped by {by.name}: nothing half-written was kept; the same command goes on", file=sys.stderr)
        sys.exit(128 + by)


def _stop(by: signal.Signals) -> None:
    raise Stopped(by)
