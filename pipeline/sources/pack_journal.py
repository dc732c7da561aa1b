"""A partially written packed array: a file of pixels, and a journal of the rows that are complete.

Packing can be killed at any moment, and the next run reuses the complete rows. Writes are not flushed to the disk.
Instead, each line of the journal has a checksum of itself and of its row's pixels, so truncated lines and pages that
never reached the disk are detected, and these rows are packed again.
"""

import errno
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

from pipeline.core.locks import locked
from pipeline.core.progress import track

JOURNAL = "journal"

NOT_ALLOCATED = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
"""What file systems that cannot allocate space in advance answer, such as ZFS and some network drives."""

Pixels = npt.NDArray[np.uint8]
Figures = tuple[str | int | float, ...]


class JournalRow(NamedTuple):
    """A line of the journal."""

    row: int
    stamp: str
    """Stamp of the files that the row was made from."""
    checksum: int
    figures: Figures


class Partial(NamedTuple):
    """An array of images whose rows are written in any order."""

    images: int
    """File descriptor of the array."""
    journal: int
    """File descriptor of the journal."""
    start: int
    """Offset of the first row in the file."""
    shape: tuple[int, ...]
    done: dict[int, Figures]
    """The complete rows and their figures."""

    def write(self, row: int, pixels: Pixels) -> int:
        """Write the pixels of a row and return their checksum, for ``record``. Thread-safe."""
        _write(self.images, pixels.reshape(-1).data, self.offset(row))
        return _checksum(pixels)

    def offset(self, row: int) -> int:
        """Offset of a row in the file."""
        return self.start + row * math.prod(self.shape[1:])

    def record(self, row: JournalRow) -> None:
        """Record in the journal that a row is complete. Not thread-safe."""
        _append(self.journal, list(row))
        self.done[row.row] = row.figures


@contextmanager
def open_partial(
    folder: Path, name: str, shape: tuple[int, ...], made_by: str, stamps: Sequence[str]
) -> Iterator[Partial]:
    """Resume an array that an earlier run left in a folder, or start a new one.

    Args:
        folder: an existing folder.
        name: name of the array's file, in NumPy's format; rows keep their old contents until they are written.
        shape: (N, S, S, C), uint8.
        made_by: identifies what determines a row's bytes besides its files; rows with another value are not reused.
        stamps: for each row, the stamp of its files; rows made from other files are not reused.

    Raises:
        InputError: another run is using the folder.
        OSError: the disk is full; complete rows are kept.
    """
    with ExitStack() as stack:
        stack.enter_context(locked(folder / JOURNAL))
        images, journal = (_open(folder / file, stack) for file in (name, JOURNAL))
        found = _read_journal(journal, [made_by, *shape[1:]])
        partial = Partial(images, journal, _allocate(images, shape), shape, {})
        for row in track(found, "checking rows packed by an earlier run") if found else ():
            if row.row < len(stamps) and row.stamp == stamps[row.row] and _is_intact(partial, row):
                partial.done[row.row] = row.figures
        yield partial


def _open(path: Path, stack: ExitStack) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND * (path.name == JOURNAL), 0o666)
    stack.callback(os.close, descriptor)
    return descriptor


def _allocate(images: int, shape: tuple[int, ...]) -> int:
    """Write the header, allocate the whole file so that a full disk fails at once, and return the header's length."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    size = header.tell() + math.prod(shape)
    os.ftruncate(images, size)
    if allocate := getattr(os, "posix_fallocate", None):  # macOS has none
        try:
            allocate(images, 0, size)
        except OSError as error:
            if error.errno not in NOT_ALLOCATED:
                raise
    _write(images, header.getvalue(), 0)
    return header.tell()


def _write(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    view = memoryview(data)
    while view:
        # A call writes at most 2 GiB, and less if the disk fills up, in which case the next call raises.
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _read_journal(journal: int, head: list[Any]) -> list[JournalRow]:
    """Read the rows of the journal up to the first damaged line, and truncate the journal there."""
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
    """The entry of a line, or None if the line is damaged."""
    checksum, _, body = line.rstrip(b"\n").partition(b" ")
    return json.loads(body) if checksum == b"%08x" % zlib.crc32(body) and line.endswith(b"\n") else None


def _is_intact(partial: Partial, row: JournalRow) -> bool:
    size = math.prod(partial.shape[1:])
    data = os.pread(partial.images, size, partial.offset(row.row))
    return len(data) == size and _checksum(np.frombuffer(data, np.uint8)) == row.checksum


def _checksum(pixels: Pixels) -> int:
    """Sum of the 8-byte words, ten times faster than a CRC. A lost page reads as zeros, which lowers the sum."""
    flat = pixels.reshape(-1)
    whole = flat.size // 8 * 8
    return (int(flat[:whole].view(np.uint64).sum()) + int(flat[whole:].sum())) % 2**64
