"""A lock, so that two runs do not write to one folder."""

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.core.errors import InputError
from pipeline.core.progress import say

UNSUPPORTED = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
"""What file systems without locks answer, such as Lustre that is mounted without them."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock on the file ``path``, which is made if it does not exist.

    On a file system without locks, only say so.

    Raises:
        InputError: another process holds the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{path.parent}: another run is using this folder: wait for it, or stop it") from None
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
            say(f"{path.parent}: this file system has no locks: do not start a second run that uses this folder")
        yield
