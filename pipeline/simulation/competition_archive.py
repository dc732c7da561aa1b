"""Write a simulated competition as a zip in Kaggle's layout, one image at a time."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import pandas as pd

from pipeline.core.labels import CHANNELS, format_target
from pipeline.core.params import Simulation
from pipeline.core.progress import track
from pipeline.simulation.competition import Entry
from pipeline.simulation.raster import encode_png, single_threaded
from pipeline.simulation.render import render

T = TypeVar("T")
R = TypeVar("R")

TABLES = ("train.csv", "sample_submission.csv")
"""The first members of the zip."""

UNDATED = (1980, 1, 1, 0, 0, 0)
"""The date of all members, so that the bytes do not depend on the time."""

AHEAD = 4
"""Images per process that are drawn in advance, which limits the memory."""


def targets(entries: Iterable[Entry], column: str = "Target") -> pd.DataFrame:
    """Table of the true labels (columns Id and ``column``), one row per entry."""
    return pd.DataFrame([(entry.id, format_target(entry.labels)) for entry in entries], columns=["Id", column])


def groups(entries: Iterable[Entry]) -> pd.DataFrame:
    """Table of the antibodies (columns id, antibody), one row per entry."""
    return pd.DataFrame([(entry.id, entry.group) for entry in entries], columns=["id", "antibody"])


def write_archive(path: Path, entries: Sequence[Entry], settings: Simulation, workers: int) -> None:
    """Write the zip of a competition. Its bytes depend on the parameters, not on the number of workers.

    Images are drawn by ``workers`` processes (0: by this process) and written in the order of ``entries``, without
    compression, because PNG is already compressed.
    """
    test = targets((entry for entry in entries if entry.split == "test"), "Predicted").assign(Predicted=0)
    train = targets(entry for entry in entries if entry.split == "train")
    with ZipFile(path, "w", ZIP_STORED) as archive:
        _add(archive, TABLES[0], train.to_csv(index=False, lineterminator="\n").encode())
        _add(archive, TABLES[1], test.to_csv(index=False, lineterminator="\n").encode())
        images = in_order(partial(encoded, settings=settings), entries, workers)
        for entry, channels in zip(entries, track(images, "simulate", total=len(entries)), strict=True):
            for channel, data in zip(CHANNELS, channels, strict=True):
                _add(archive, f"{entry.split}/{entry.id}_{channel}.png", data)


def is_simulated(path: Path) -> bool:
    """Whether ``write_archive`` has written a file: archives of real files are dated, and in another order."""
    try:
        with ZipFile(path) as archive:
            tables = archive.infolist()[: len(TABLES)]
    except (OSError, BadZipFile):
        return False
    return [(table.filename, table.date_time) for table in tables] == [(name, UNDATED) for name in TABLES]


def encoded(entry: Entry, settings: Simulation) -> tuple[bytes, ...]:
    """Draw an entry and encode its four channels as PNG."""
    image = render(entry, settings)
    return tuple(encode_png(image[..., channel].copy()) for channel in range(len(CHANNELS)))


def in_order(work: Callable[[T], R], items: Iterable[T], workers: int) -> Generator[R, None, None]:
    """Map ``work`` over items in ``workers`` processes; yield results in order, and keep only a few in memory."""
    if not workers:
        yield from map(work, items)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:
        waiting: deque[Future[R]] = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _start_worker() -> None:
    # The parent handles Ctrl-C and stops its workers; tracebacks of the workers would hide its message.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    single_threaded()


def _end_with_parent() -> None:
    """Exit if the parent was killed, because a worker would otherwise wait for its next item forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _add(archive: ZipFile, name: str, data: bytes) -> None:
    entry = ZipInfo(name, UNDATED)
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, data)
