"""Pack a source: decode and check every image once, resize it, and write it to one array."""

import shutil
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from hashlib import blake2b
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

import numpy as np
import pandas as pd

from pipeline.core import code_digest, paths, processors
from pipeline.core.errors import InputError, Problem, raise_problems
from pipeline.core.labels import CHANNELS
from pipeline.core.progress import say, track
from pipeline.sources import images, perceptual_hash
from pipeline.sources.archive import Archive
from pipeline.sources.pack_journal import Figures, JournalRow, open_partial
from pipeline.sources.packed_array import COLUMNS

IMAGES, INDEX = "images.npy", "index.csv"
"""The files that ``pack`` writes."""

SPARE_BYTES = 64 * 2**20
"""Disk space for everything that is written besides the images."""

AHEAD = 2
"""Samples per thread that are being packed or wait to be recorded."""

ENDINGS = (".png", ".jpg", ".tif", ".jpeg", ".tiff", ".ome.tif", ".ome.tiff")
"""Endings of files of one stain, in capitals or not. If a sample has several, the first one counts."""

REMEDY = "add all four files of the sample, or download the archive again"
"""What to do about missing files of a source."""

MEASURED = list(COLUMNS)[list(COLUMNS).index("height") :]
"""The columns of the index that are computed from the images."""

T = TypeVar("T")
R = TypeVar("R")


def pack(
    archive: Archive, samples: pd.DataFrame, size: int, folder: Path, problems: Iterable[Problem] = ()
) -> pd.DataFrame:
    """Write ``images.npy`` and ``index.csv`` of a source, resuming from what an earlier run left in the folder.

    One thread per core reads, decodes and writes samples; OpenCV and system calls release the GIL. Only a few samples
    are in memory at a time. The state that a later run resumes from is kept in the same folder: see ``pack_journal``.

    Args:
        archive: the source's files.
        samples: ``id``, ``split``, ``target`` and ``group``, in the order to pack.
        size: side of the packed images in pixels.
        folder: an existing folder.
        problems: problems that are already known; the images are checked as well.

    Returns:
        The index.

    Raises:
        InputError: samples are missing or invalid (the message counts all problems), or the disk is too small.
    """
    shape = (len(samples), size, size, len(CHANNELS))
    _check_space(folder, int(np.prod(shape)) + SPARE_BYTES)
    ids = samples["id"].tolist()
    stamps = [_stamp(archive, id_) for id_ in ids]
    found = list(problems)
    threads = processors.usable()
    with open_partial(folder, IMAGES, shape, _maker(), stamps) as partial:
        if partial.done:
            say(f"{len(partial.done):,} of {len(ids):,} samples were packed by an earlier run")
        left = [row for row in range(len(ids)) if row not in partial.done]

        # One buffer per thread, reused for all samples: faulting in new pages takes longer than writing to them.
        buffers = SimpleQueue[images.Image]()
        for _ in range(threads):
            buffers.put(np.empty(shape[1:], np.uint8))

        def work(row: int) -> JournalRow | list[Problem]:
            """Pack one row; return its journal entry, or what is wrong with the sample."""
            pixels = buffers.get()
            try:
                result = pack_sample(archive, ids[row], pixels)
                if isinstance(result, list):
                    return result
                return JournalRow(row, stamps[row], partial.write(row, pixels), result)
            finally:
                buffers.put(pixels)

        # Closed before the file, so that no thread writes to a descriptor that has been reused for another file.
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
    """Read, check and resize the four channels of one sample.

    Args:
        archive: the source's files.
        id_: id of the sample.
        into: (S, S, 4) uint8, the array to write the pixels to.

    Returns:
        The values of the columns ``MEASURED``, or the problems of the sample.
    """
    pixels, thumbnails, figures, problems = [], [], list[str | int | float](), []
    sides = {}
    for channel in CHANNELS:
        found = read_stain(archive, id_, channel, REMEDY)
        if isinstance(found, Problem):
            problems.append(found)
            continue
        data, image = found
        # Resized one at a time: holding four full-size channels in each of many threads could fill the memory.
        pixels.append(images.fit(image, len(into)))
        thumbnails.append(perceptual_hash.thumbnail(pixels[-1]))
        sides[channel] = len(image)
        figures += [digest(data), *images.statistics(image)]
    problems += size_problems(id_, sides)
    if problems:
        return problems
    side = sides[CHANNELS[0]]
    images.merge(pixels, into)
    return (side, side, perceptual_hash.perceptual_hash(np.dstack(thumbnails)), *figures)


def read_stain(archive: Archive, id_: str, channel: str, remedy: str) -> tuple[bytes, images.Image] | Problem:
    """Read, check and decode one channel of a sample, (S, S) uint8; also return the file's bytes.

    Args:
        archive: all files.
        id_: id of the sample.
        channel: one of ``labels.CHANNELS``.
        remedy: what to do if the file is missing, as part of the message.
    """
    name = _file_name(archive, f"{id_}_{channel}")
    if name not in archive.members:
        return Problem(name, f"files are missing: {remedy}{f' ({archive.advice})' if archive.advice else ''}")
    try:
        data = read_file(archive, name)
        return data, images.decode(data, channel)
    except InputError as error:
        return Problem(archive.members[name].where, str(error))


def read_file(archive: Archive, name: str) -> bytes:
    """Read an existing file.

    Raises:
        InputError: the file cannot be read, or its name is not unique; the message does not name the file.
    """
    if name in archive.repeated:
        raise InputError("files occur more than once: keep one of each")
    return archive.members[name].read()


def size_problems(id_: str, sides: Mapping[str, int]) -> list[Problem]:
    """The problem of a sample whose channels have different sides; empty if all are the same."""
    if len(set(sides.values())) <= 1:
        return []
    listed = ", ".join(f"{channel} {side}" for channel, side in sides.items())
    return [Problem(f"{id_} ({listed})", "channels of different sizes: download all files of the sample again")]


def digest(data: bytes) -> str:
    """CRC-32 and length of a file, as 16 hexadecimal digits.

    Enough to tell different images apart, since the digests of all four files of a sample are compared. Takes 1/70 of
    the time of decoding.
    """
    return f"{zlib.crc32(data):08x}{len(data):08x}"


def in_threads(work: Callable[[T], R], items: Iterable[T], threads: int) -> Generator[R, None, None]:
    """Map ``work`` over items in threads; yield the results in order, and work only a few items ahead."""
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) >= AHEAD * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _file_name(archive: Archive, stem: str) -> str:
    """Name of the file with the first of `ENDINGS` that exists, otherwise of a PNG."""
    names = [stem + ending for ending in ENDINGS]
    plain = next((name for name in names if name in archive.members), None)
    return plain or next((archive.spelled[name] for name in names if name in archive.spelled), names[0])


def _stamp(archive: Archive, id_: str) -> str:
    """A text that changes whenever one of a sample's files changes."""
    names = [_file_name(archive, f"{id_}_{channel}") for channel in CHANNELS]
    parts = [f"{name} {archive.members[name].stamp()}" for name in names if name in archive.members]
    return blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()


def _maker() -> str:
    """Identify what determines pixels and figures besides the files and the size: this code and OpenCV."""
    return blake2b(code_digest.of_module(__name__).encode(), digest_size=16).hexdigest() + images.VERSION


def _check_space(folder: Path, needed: int) -> None:
    reusable = sum(path.stat().st_blocks * 512 for path in folder.iterdir())
    free = shutil.disk_usage(folder).free + reusable
    if free < needed:
        raise InputError(
            f"{folder}: needs {needed / 1e9:.1f} GB of disk space, but only {free / 1e9:.1f} GB are free: make room, "
            f"move {paths.PACKED} to a larger disk and put a link to it in its place, or lower pack.size in params.yaml"
        )
