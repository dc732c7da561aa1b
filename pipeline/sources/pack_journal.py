"""A packed array on its way: pixels at their place, and a journal of the rows that stand.

Killed at any moment, the next run finds here what it need not do again. Nothing waits for the disk: each line of the
journal is checked by itself, and each row's pixels against the sum that its line holds, so that neither a torn line
nor a page that never reached the disk is taken for work done.
"""

import fcntl
import io
import json
import math
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.core.errors import InputError
from pipeline.core.progress import track

JOURNAL = "journal"

Pixels = npt.NDArray[np.uint8]
Figures = tuple[str | int | float, ...]


class JournalRow(NamedTuple):
    """A line of the journal."""

    row: int
    stamp: str
    """Of the files that the row was made from."""
    checksum: int
    figures: Figures


class Partial(NamedTuple):
    """An array of images that is being filled, in any order."""

    images: int
    """Descriptor of the file."""
    journal: int
    start: int
    """Where the first row begins."""
    shape: tuple[int, ...]
    done: dict[int, Figures]
    """The rows that stand, with their figures."""

    def write(self, row: int, pixels: Pixels) -> int:
        """Write the pixels of one row, from any thread; their checksum is returned, for ``record``."""
        _write(self.images, pixels.reshape(-1).data, self.offset(row))
        return _checksum(pixels)

    def offset(self, row: int) -> int:
        """Where a row begins in the file."""
        return self.start + row * math.prod(self.shape[1:])

    def record(self, row: JournalRow) -> None:
        """Note that a row stands. One thread alone may call this."""
        _append(self.journal, list(row))
        self.done[row.row] = row.figures


@contextmanager
def open_partial(
    folder: Path, name: str, shape: tuple[int, ...], made_by: str, stamps: Sequence[str]
) -> Iterator[Partial]:
    """Go on with an array that an earlier run left in a folder, or begin one.

    Args:
        folder: an existing folder.
        name: of the array's file, in NumPy's format; it holds whatever it held until its rows are written.
        shape: (N, S, S, C), uint8.
        made_by: whatever decides a row's bytes besides its files; work by another maker is not used.
        stamps: for each row that of its files; a row made from others is not used.

    Raises:
        InputError: another run is at work in the folder.
        OSError: the disk is full; what stands stays.
    """
    with ExitStack() as stack:
        images, journal = (_open(folder / file, stack) for file in (name, JOURNAL))
        try:
            fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{folder}: another run is at work there: wait for it, or stop it") from None
        found = _read_journal(journal, [made_by, *shape[1:]])
        partial = Partial(images, journal, _allocate(images, shape), shape, {})
        for row in track(found, "checking what an earlier run packed") if found else ():
            if row.row < len(stamps) and row.stamp == stamps[row.row] and _stands(partial, row):
                partial.done[row.row] = row.figures
        yield partial


def _open(path: Path, stack: ExitStack) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND * (path.name == JOURNAL), 0o666)
    stack.callback(os.close, descriptor)
    return descriptor


def _allocate(images: int, shape: tuple[int, ...]) -> int:
    """Give the file its header, whose length is returned, and its full size: better no room now than after hours."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    size = header.tell() + math.prod(shape)
    os.ftruncate(images, size)
    if allocate := getattr(os, "posix_fallocate", None):  # macOS has none
        allocate(images, 0, size)
    _write(images, header.getvalue(), 0)
    return header.tell()


def _write(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    view = memoryview(data)
    while view:
        # Never more than 2 GiB at once, and less where the disk gets full: the next call then says so.
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _read_journal(journal: int, head: list[Any]) -> list[JournalRow]:
    """Rows of the journal up to the first line that is not whole; that one and all after it are cut off."""
    entries: list[Any] = []
    end = 0
    with os.fdopen(os.dup(journal), "rb") as file:
        file.seek(0)
        for line in file:
            entry = _parse(line)
            if entry is None or (not entries and entry != head):
                break
            entries.append(entry)
            end += len(line)
    os.ftruncate(journal, end)
    if not entries:
        _append(journal, head)
    return [JournalRow(row, stamp, checksum, tuple(figures)) for row, stamp, checksum, figures in entries[1:]]


def _append(journal: int, entry: list[Any]) -> None:
    body = json.dumps(entry).encode()
    os.write(journal, b"%08x %s\n" % (zlib.crc32(body), body))


def _parse(line: bytes) -> Any:
    """The entry of a line, or nothing when the line is not whole."""
    checksum, _, body = line.rstrip(b"\n").partition(b" ")
    return json.loads(body) if checksum == b"%08x" % zlib.crc32(body) and line.endswith(b"\n") else None


def _stands(partial: Partial, row: JournalRow) -> bool:
    size = math.prod(partial.shape[1:])
    data = os.pread(partial.images, size, partial.offset(row.row))
    return len(data) == size and _checksum(np.frombuffer(data, np.uint8)) == row.checksum


def _checksum(pixels: Pixels) -> int:
    """Sum of the 8-byte words, ten times faster than a CRC; a page that was lost reads as zeros and lowers it."""
    flat = pixels.reshape(-1)
    whole = flat.size // 8 * 8
    return (int(flat[:whole].view(np.uint64).sum()) + int(flat[whole:].sum())) % 2**64
