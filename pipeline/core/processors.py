"""How many processes and threads to start."""

import sys
from typing import Literal

from joblib import cpu_count


def usable() -> int:
    """Number of cores this process may use: a scheduler, a container or ``taskset`` may allow fewer than there are."""
    return int(cpu_count())


def workers(setting: int | Literal["auto"], processes: int = 1) -> int:
    """Workers for each of ``processes`` processes: ``setting``, or for "auto" the share of the cores, 1 to 16."""
    return min(max(usable() // processes, 1), 16) if setting == "auto" else setting


def loaders(setting: int | Literal["auto"], processes: int = 1) -> int:
    """Processes that load images for each of ``processes`` processes: as ``workers``, but 0 for "auto" on macOS.

    Loaders are forked, so that they share the arrays. On macOS a process that uses threads or a GPU cannot be forked
    safely; there, the training process loads the images itself.
    """
    return 0 if setting == "auto" and sys.platform == "darwin" else workers(setting, processes)
