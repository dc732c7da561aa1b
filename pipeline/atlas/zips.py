"""Reading the members of zip archives from strangers: in place, from many threads, within bounds."""

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path, PurePath, PurePosixPath

from pipeline.errors import InputError

MAX_BYTES = 32 * 2**20
"""No image or table of a competition is larger; a member that claims to be is a decompression bomb."""

# What zipfile raises on bytes that are no zip, besides its own error; OSError when it seeks to where no file is.
_FAULTS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError, OverflowError, OSError)
_LOCAL_HEADER = 30  # bytes, before the name and the extra field


def members(path: Path, stack: ExitStack) -> Iterator[tuple[PurePosixPath, Callable[[], bytes]]]:
    """List the files of a zip, and of the zips stored in it, which stand as folders.

    Args:
        path: the zip; zip64 is fine.
        stack: keeps the zip open; the readers work, from any number of threads, until it closes.

    Yields:
        The path of a file inside the zip, and a function that reads its bytes. That function raises
        ``InputError`` when the member is damaged or too large; the caller knows its name.

    Raises:
        InputError: the zip is damaged, holds a name that tries to leave it, or a zip that cannot be read in place.
    """
    try:
        file = stack.enter_context(path.open("rb"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): place it again") from None
    yield from _members(path, file, PurePosixPath(), stack)


def is_zip(name: PurePath) -> bool:
    """Whether a file is to be read as a zip; ``._train.zip`` is macOS's record about train.zip, not one."""
    return name.suffix.lower() == ".zip" and not name.name.startswith(".")


def _members(
    path: Path, file: io.BufferedReader, inside: PurePosixPath, stack: ExitStack
) -> Iterator[tuple[PurePosixPath, Callable[[], bytes]]]:
    try:
        archive = stack.enter_context(zipfile.ZipFile(file))
    except _FAULTS as error:
        raise InputError(f"{path / inside} is not a whole zip archive ({error}): download it again") from None
    for info in archive.infolist():
        name = inside / _safe_name(path, info.filename)
        if is_zip(name):
            yield from _members(path, stack.enter_context(_inner_zip(path, file, info)), name, stack)
        elif not info.is_dir():
            yield name, partial(_read, archive, info)


def _safe_name(path: Path, stored: str) -> PurePosixPath:
    # Some Windows tools write backslashes.
    name = PurePosixPath(stored.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts or not stored.isprintable():
        raise InputError(f"{path} holds an unsafe file name, {stored!r}: get the archive from its original source")
    return name


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    if info.file_size > MAX_BYTES:
        raise InputError(f"unpacks to more than {MAX_BYTES >> 20} MiB, as no file of a competition does")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # zipfile reads the other methods without a limit, so that a small member could fill the memory.
        raise InputError("compressed by another method than deflate: make the zip again")
    try:
        with archive.open(info) as file:
            # Not to the end but the stated size: a false statement must not fill the memory either.
            return file.read(info.file_size)
    except _FAULTS:
        raise InputError("damaged or encrypted in its zip: download the archive again") from None


def _inner_zip(path: Path, file: io.BufferedReader, info: zipfile.ZipInfo) -> io.BufferedReader:
    if info.compress_type != zipfile.ZIP_STORED or isinstance(file.raw, _Window):
        raise InputError(
            f"{path}: {info.filename} is a zip inside it that cannot be read in place, being compressed "
            f"or nested twice: unpack {path.name} once, delete it, and run the command again"
        )
    try:
        file.seek(info.header_offset + _LOCAL_HEADER - 4)
        lengths = struct.unpack("<HH", file.read(4))
        return io.BufferedReader(_Window(path, info.header_offset + _LOCAL_HEADER + sum(lengths), info.file_size))
    except _FAULTS:
        raise InputError(f"{path} is damaged at {info.filename}: download it again") from None


class _Window(io.RawIOBase):
    """A stretch of a file as a file of its own.

    ``ZipFile.open`` gives the same, but in Python 3.11 each step back reads the member again from its start.
    """

    def __init__(self, path: Path, start: int, size: int) -> None:
        self._file = path.open("rb", buffering=0)
        self._start = start
        self._end = start + size
        self._file.seek(start)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell() - self._start

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: self._start, os.SEEK_CUR: self._file.tell(), os.SEEK_END: self._end}[whence]
        # A start before the window belongs to another member: zipfile takes the error for a damaged zip.
        if origin + offset < self._start:
            raise ValueError("seek before the start")
        return self._file.seek(origin + offset) - self._start

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        size = min(len(buffer), max(0, self._end - self._file.tell()))
        return self._file.readinto(memoryview(buffer)[:size])

    def close(self) -> None:
        self._file.close()
        super().close()
