"""Entry points of stages and commands: exit codes, command-line flags of DVC matrix jobs, the log of stage times."""

import argparse
import csv
import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.core import stage_inputs
from pipeline.core.errors import InputError, Stopped, when_asked_to_stop
from pipeline.core.params import Params

TIMES = Path("logs/times.csv")
"""One row per finished stage: stage, matrix job, seconds. If a job has several rows, the last one is valid."""

STAGES = "pipeline.stages."

_FAILED = "check the disk or the network drive"
REMEDIES = {
    errno.ENOSPC: "free some space or choose another disk",
    errno.EDQUOT: "free some space or choose another disk",
    errno.EACCES: "check write permission or choose another disk",
    errno.EPERM: "check write permission or choose another disk",
    errno.EROFS: "check write permission or choose another disk",
    errno.EFBIG: "choose a disk whose file system allows larger files (FAT32: 4 GB), or raise the limit (ulimit -f)",
    errno.ENODEV: "choose a disk whose file system can map files into memory",
    errno.EIO: _FAILED,
    errno.ESTALE: _FAILED,
    errno.ENOTCONN: _FAILED,
    errno.ETIMEDOUT: _FAILED,
    errno.EMFILE: "raise the number of files that may be open (ulimit -n)",
    errno.ENFILE: "raise the number of files that may be open (ulimit -n)",
    errno.ENAMETOOLONG: "shorten the name, or move the project to a shorter path",
    errno.ELOOP: "correct the link, which leads to itself",
    errno.EISDIR: "a file has to be there: move the folder away, or name a file",
}
"""What a user can do about errors of the operating system; others are bugs."""


def run_main(main: Callable[[], None]) -> None:
    """Run ``main`` and turn user errors into a message and an exit code.

    A stage also fails if what it read has changed meanwhile. Invalid input, and what the machine lacks, exit with code
    1, Ctrl-C with 130 and SIGTERM with 143, as shells expect. Any other exception is a bug and keeps its traceback.
    """
    try:
        with when_asked_to_stop(_stop), _timed():
            stage_inputs.remember()
            main()
            stage_inputs.check()
    except InputError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        path, remedy = (Path(str(error.filename)) if error.filename else None), REMEDIES.get(error.errno or 0)
        if path and error.errno in (errno.ENOENT, errno.EEXIST, errno.ENOTDIR) and (problem := _misplaced(path)):
            sys.exit(f"error: {problem}, then run the command again")
        if remedy is None:
            raise
        if path and error.errno in (errno.EACCES, errno.EPERM) and path.is_file() and not os.access(path, os.R_OK):
            remedy = "check read permission"
        where = f"{path}: " if path else ""
        # Not error.strerror, in which libraries such as HDF5 write what their developers need.
        sys.exit(f"error: {where}{os.strerror(error.errno or 0)}: {remedy}, then run the command again")
    except MemoryError as error:
        sys.exit(
            f"error: not enough memory{f' ({error})' if str(error) else ''}: close other programs or raise the limit, "
            "or lower batch_size, machine.predict_batch or machine.workers, then run the command again"
        )
    except KeyboardInterrupt as error:
        by = error.by if isinstance(error, Stopped) else signal.SIGINT
        print(
            f"stopped by {by.name}: run the same command again to resume from what was saved, if anything",
            file=sys.stderr,
        )
        sys.exit(128 + by)


def model_and_fold(settings: Params) -> tuple[str, int]:
    """Read ``--model NAME --fold K`` from the command line.

    Raises:
        InputError: params.yaml has no such model or fold.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, help="a key of models in params.yaml")
    parser.add_argument("--fold", required=True, type=int, help="one of folds.ids in params.yaml")
    arguments = parser.parse_args()
    _check_known("--model", arguments.model, settings.models)
    _check_known("--fold", arguments.fold, settings.folds.ids)
    return arguments.model, arguments.fold


def model_name(settings: Params) -> str:
    """Read ``--model NAME`` from the command line.

    Raises:
        InputError: params.yaml has no such model.
    """
    return _one_flag("--model", "a key of models in params.yaml", settings.models)


def source_name(settings: Params) -> str:
    """Read ``--source NAME`` from the command line.

    Raises:
        InputError: params.yaml has no such source.
    """
    return _one_flag("--source", "one of data.sources in params.yaml", settings.data.sources)


def read_times() -> dict[str, dict[str, float]]:
    """Seconds by stage and job, in the order in which the stages first ran; empty without a log."""
    times: dict[str, dict[str, float]] = {}
    if TIMES.exists():
        with TIMES.open(encoding="utf-8", newline="") as file:
            for stage, job, seconds in csv.reader(file):
                times.setdefault(stage, {})[job] = float(seconds)
    return times


@contextmanager
def _timed() -> Iterator[None]:
    """If the program is a stage and the block succeeds, log the time that the block took."""
    start = time.monotonic()
    yield
    specification = sys.modules["__main__"].__spec__
    if specification is None or not specification.name.startswith(STAGES):
        return
    TIMES.parent.mkdir(exist_ok=True)
    # Rows are written in a single append, so stages that end at the same time do not interleave them.
    with TIMES.open("a", encoding="utf-8", newline="") as file:
        stage = specification.name.removeprefix(STAGES)
        csv.writer(file).writerow([stage, " ".join(sys.argv[1:]), f"{time.monotonic() - start:.1f}"])


def _misplaced(path: Path) -> str:
    """What is wrong where a link leads nowhere, or a file is in the place of a folder; empty if neither is."""
    for place in (path, *path.parents):
        if place.is_symlink() and not place.exists():
            return f"{place} is a link to {place.readlink()}, which does not exist: mount its disk or correct the link"
        if place.is_file():
            return f"{place} is a file, but has to be a folder: move it away"
    return ""


def _one_flag(flag: str, help_text: str, known: Iterable[str]) -> str:
    parser = argparse.ArgumentParser()
    parser.add_argument(flag, dest="value", required=True, help=help_text)
    value: str = parser.parse_args().value
    _check_known(flag, value, known)
    return value


def _check_known(flag: str, value: str | int, known: Iterable[str | int]) -> None:
    if value not in known:
        raise InputError(f"{flag} {value} is not in params.yaml: choose from {', '.join(map(str, known))}")


def _stop(by: signal.Signals) -> None:
    raise Stopped(by)
