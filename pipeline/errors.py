"""How a stage ends when its input is at fault: one message, exit code 1, no traceback."""

import errno
import sys
from collections.abc import Callable

from pipeline.clock import timed


class InputError(ValueError):
    """Something the user gave is wrong; the message says what, where and what to do."""


def run_stage(main: Callable[[], None]) -> None:
    """Run a stage's ``main`` and turn the user's problems into a message and an exit code.

    Bad input ends with code 1; an interruption ends with 130, as shells expect. Any other
    exception is a defect of ours and keeps its traceback.
    """
    try:
        with timed():
            main()
    except InputError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        where = f"{error.filename}: " if error.filename else ""
        remedy = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "get the right to write there"
        sys.exit(f"error: {where}{error.strerror}: {remedy} or choose another disk, then run the command again")
    except KeyboardInterrupt:
        print("interrupted: nothing half-written was kept; the same command goes on", file=sys.stderr)
        sys.exit(130)
