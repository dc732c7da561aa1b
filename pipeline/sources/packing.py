"""Packing: every image of a source decoded once, checked, brought to one size and written into one array."""

import os
import shutil
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from hashlib import blake2b
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

import numpy as np
import pandas as pd

from pipeline.core import code_digest, paths
from pipeline.core.errors import InputError, Problem, raise_problems
from pipeline.core.labels import CHANNELS
from pipeline.core.progress import say, track
from pipeline.sources import images, perceptual_hash
from pipeline.sources.archive import Archive
from pipeline.sources.pack_journal import Figures, JournalRow, open_partial
from pipeline.sources.packed_array import COLUMNS

IMAGES, INDEX = "images.npy", "index.csv"
"""What ``pack`` writes to its folder."""

SPARE_BYTES = 64 * 2**20
"""Room on the disk for all that is written besides the images."""

AHEAD = 2
"""Samples in work or waiting to be recorded, for each thread."""

MEASURED = list(COLUMNS)[list(COLUMNS).index("height") :]
"""The columns of the index that come from the images."""

T = TypeVar("T")
R = TypeVar("R")


def pack(
    archive: Archive, samples: pd.DataFrame, size: int, folder: Path, problems: Iterable[Problem] = ()
) -> pd.DataFrame:
    """Write ``images.npy`` and ``index.csv`` of a source, going on from what an earlier run left in the folder.

    Samples are read, decoded and written in one thread a core (OpenCV and the system's calls let go of the
    interpreter's lock), a few at a time, so that the memory needed does not depend on their number. What is kept
    for the next run stands in the folder as well: see ``partial``.

    Args:
        archive: the source's files.
        samples: ``id``, ``split``, ``target`` and ``group``, in the order to pack.
        size: side of the packed images in pixels.
        folder: an existing folder.
        problems: what is known to be wrong already; the images are checked all the same.

    Returns:
        The index.

    Raises:
        InputError: a sample is missing or bad (the message counts them all), or the disk is too small.
    """
    shape = (len(samples), size, size, len(CHANNELS))
    _check_space(folder, int(np.prod(shape)) + SPARE_BYTES)
    ids = samples["id"].tolist()
    stamps = [_stamp(archive, id_) for id_ in ids]
    found = list(problems)
    threads = os.cpu_count() or 1
    with open_partial(folder, IMAGES, shape, _maker(), stamps) as partial:
        if partial.done:
            say(f"{len(partial.done):,} of {len(ids):,} samples stand from an earlier run")
        left = [row for row in range(len(ids)) if row not in partial.done]

        # One for each thread, used again and again: the pages of new memory cost more than what is written to them.
        buffers = SimpleQueue[images.Image]()
        for _ in range(threads):
            buffers.put(np.empty(shape[1:], np.uint8))

        def work(row: int) -> JournalRow | list[Problem]:
            pixels = buffers.get()
            try:
                found = pack_sample(archive, ids[row], pixels)
                return (
                    found
                    if isinstance(found, list)
                    else JournalRow(row, stamps[row], partial.write(row, pixels), found)
                )
            finally:
                buffers.put(pixels)

        # Closed before the file is: no thread may write to a descriptor that is someone else's by then.
        with closing(in_threads(work, left, threads)) as results:
            for result in track(results, "packing", total=len(left)):
                if isinstance(result, JournalRow):
                    partial.record(result)
                else:
                    found += result
        raise_problems(archive.folder, found)
        measured = pd.DataFrame([partial.done[row] for row in range(len(ids))], samples.index, MEASURED)
    index = samples.assign(row=np.arange(len(ids))).join(measured)[list(COLUMNS)]
    index.to_csv(folder / INDEX, index=False, float_format="%.6f", lineterminator="\n")
    return index


def pack_sample(archive: Archive, id_: str, into: images.Image) -> Figures | list[Problem]:
    """Read, check and fit the four channels of one sample.

    Args:
        archive: the source's files.
        id_: the sample's.
        into: (S, S, 4), takes the pixels.

    Returns:
        What was measured, in the order of ``MEASURED``; or what is wrong.
    """
    pixels, thumbnails, figures, problems = [], [], list[str | int | float](), []
    sides = {}
    for channel in CHANNELS:
        name = _file_name(archive, f"{id_}_{channel}")
        try:
            data = _read(archive, name)
            image = images.decode(data, channel)
        except InputError as error:
            where = archive.members[name].where if name in archive.members else name
            problems.append(Problem(where, str(error)))
            continue
        # Fitted one by one, not as four channels at once: of full-size fields, many threads would fill the memory.
        pixels.append(images.fit(image, len(into)))
        thumbnails.append(perceptual_hash.thumbnail(pixels[-1]))
        sides[channel] = len(image)
        figures += [digest(data), *images.statistics(image)]
    if len(set(sides.values())) > 1:
        listed = ", ".join(f"{channel} {side}" for channel, side in sides.items())
        problems.append(Problem(f"{id_} ({listed})", "channels of different sizes: download the four files again"))
    if problems:
        return problems
    side = sides[CHANNELS[0]]
    images.merge(pixels, into)
    return (side, side, perceptual_hash.perceptual_hash(np.dstack(thumbnails)), *figures)


def digest(data: bytes) -> str:
    """CRC-32 and length of a file, 16 hexadecimal digits.

    They tell apart whatever meets by chance, four files of a sample the more, and cost a seventieth of decoding.
    """
    return f"{zlib.crc32(data):08x}{len(data):08x}"


def in_threads(work: Callable[[T], R], items: Iterable[T], threads: int) -> Generator[R, None, None]:
    """Map ``work`` over items in threads, in order, never more than a few items ahead of who reads."""
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) >= AHEAD * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _file_name(archive: Archive, stem: str) -> str:
    """The competition's PNG, or else the atlas's JPEG."""
    jpeg = f"{stem}.jpg"
    return jpeg if jpeg in archive.members and f"{stem}.png" not in archive.members else f"{stem}.png"


def _read(archive: Archive, name: str) -> bytes:
    if name not in archive.members:
        raise InputError("files are missing: place all four of the sample, or download the archive again")
    if name in archive.repeated:
        raise InputError("files are there more than once: leave one of each")
    return archive.members[name].read()


def _stamp(archive: Archive, id_: str) -> str:
    """Name what changes whenever one of a sample's files does."""
    names = [_file_name(archive, f"{id_}_{channel}") for channel in CHANNELS]
    parts = [f"{name} {archive.members[name].stamp()}" for name in names if name in archive.members]
    return blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()


def _maker() -> str:
    """Identify what determines the pixels and figures besides files and size: this code and OpenCV's."""
    return blake2b(code_digest.of_module(__name__).encode(), digest_size=16).hexdigest() + images.VERSION


def _check_space(folder: Path, needed: int) -> None:
    there = sum(path.stat().st_blocks * 512 for path in folder.iterdir())
    free = shutil.disk_usage(folder).free + there
    if free < needed:
        raise InputError(
            f"{folder}: {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free: free some space, "
            f"make {paths.RESUME} a link to a folder on a larger disk, or lower pack.size in params.yaml"
        )
