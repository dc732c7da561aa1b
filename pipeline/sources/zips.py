"""Reading the members of zip archives from strangers: in place, from many threads, within bounds."""

import io
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path, PurePath, PurePosixPath
from typing import NamedTuple

from pipeline.core.errors import InputError

MAX_BYTES = 32 * 2**20
"""No image or table of a competition is larger; a member that claims to be is a decompression bomb."""

# What zipfile raises on bytes that are no zip, besides its own error; OSError when it seeks to where no file is.
_FAULTS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError, OverflowError, OSError)
_ENCRYPTED = 1  # in a member's flags


class Stored(NamedTuple):
    """A member of a zip. It holds no more than reading takes, because an archive can have 300,000 of them."""

    where: str
    """Path inside the source's folder, zips as folders."""
    descriptor: int
    header: int
    """Where in the file its local header begins."""
    packed: int
    size: int
    crc: int
    readable: bool
    deflated: bool

    def read(self) -> bytes:
        """Read and check the bytes; safe in any thread, where ``ZipFile`` would make the threads wait for each other.

        Raises:
            InputError: the member is damaged, encrypted or too large; the caller knows its name.
        """
        if max(self.size, self.packed) > MAX_BYTES:
            raise InputError(f"unpacks to more than {MAX_BYTES >> 20} MiB, as no file of a competition does")
        if not self.readable:
            raise InputError("encrypted, or compressed by another method than deflate: make the zip again")
        try:
            data = os.pread(self.descriptor, self.packed, _data_start(self.descriptor, self.header))
            if self.deflated:
                # Not to the end but the stated size (0 would be no limit): a false one must not fill the memory.
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, max(self.size, 1))
        except _FAULTS:
            data = b""
        if len(data) != self.size or zlib.crc32(data) != self.crc:
            raise InputError("damaged in its zip: download the archive again")
        return data

    def stamp(self) -> str:
        """Name what changes whenever the bytes do, without reading them."""
        return f"{self.size} {self.crc}"


def members(path: Path, within: PurePosixPath, stack: ExitStack) -> Iterator[Stored]:
    """List the files of a zip, and of the zips stored in it, which stand as folders.

    Args:
        path: the zip; zip64 is fine.
        within: its path inside the source's folder.
        stack: keeps the zip open; its members can be read until it closes.

    Raises:
        InputError: the zip is damaged, holds a link, a name that tries to leave it, or a zip that cannot be
            read in place.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is not a file: take it away")  # a pipe would be waited for without end
    try:
        file = stack.enter_context(path.open("rb"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): place it again") from None
    yield from _members(path, file, file.fileno(), within)


def is_zip(name: PurePath) -> bool:
    """Whether a file is to be read as a zip; ``._train.zip`` is macOS's record about train.zip, not one."""
    return name.suffix.lower() == ".zip" and not name.name.startswith(".")


def _members(path: Path, file: io.BufferedReader, descriptor: int, within: PurePosixPath) -> Iterator[Stored]:
    """Members of the zip in ``file``: all of the file at ``path``, which ``descriptor`` reads, or a stretch of it."""
    start = file.raw.start if isinstance(file.raw, _Window) else 0
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
    except _FAULTS as error:
        raise InputError(f"{path} is not a whole zip archive ({error}): download it again") from None
    for info in infos:
        name = within / _safe_name(path, info)
        header = start + info.header_offset
        if is_zip(name):
            with _inner_zip(path, file, info, descriptor) as inner:
                yield from _members(path, inner, descriptor, name)
        elif not info.is_dir():
            deflated = info.compress_type == zipfile.ZIP_DEFLATED
            # zipfile reads the other methods without a limit, so that a small member could fill the memory.
            readable = (deflated or info.compress_type == zipfile.ZIP_STORED) and not info.flag_bits & _ENCRYPTED
            yield Stored(
                str(name), descriptor, header, info.compress_size, info.file_size, info.CRC, readable, deflated
            )


def _safe_name(path: Path, info: zipfile.ZipInfo) -> PurePosixPath:
    stored = info.filename
    name = PurePosixPath(stored.replace("\\", "/"))  # some Windows tools write backslashes
    if name.is_absolute() or ".." in name.parts or not stored.isprintable():
        raise InputError(f"{path} holds an unsafe file name, {stored!r}: get the archive from its original source")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise InputError(f"{path} holds a link, {stored}, which may lead anywhere: make the zip of files")
    return name


def _inner_zip(path: Path, file: io.BufferedReader, info: zipfile.ZipInfo, descriptor: int) -> io.BufferedReader:
    if info.compress_type != zipfile.ZIP_STORED or isinstance(file.raw, _Window):
        raise InputError(
            f"{path}: {info.filename} is a zip inside it that cannot be read in place, being compressed "
            f"or nested twice: unpack {path.name} once, delete it, and run the command again"
        )
    try:
        return io.BufferedReader(_Window(path, _data_start(descriptor, info.header_offset), info.file_size))
    except _FAULTS:
        raise InputError(f"{path} is damaged at {info.filename}: download it again") from None


def _data_start(descriptor: int, header: int) -> int:
    """Where a member's bytes begin: after its local header, whose name and extra field have lengths of their own."""
    signature, name, extra = struct.unpack("<4s22xHH", os.pread(descriptor, 30, header))
    if signature != b"PK\x03\x04":
        raise zipfile.BadZipFile("no member where the directory says")
    return header + 30 + int(name) + int(extra)


class _Window(io.RawIOBase):
    """A stretch of a file as a file of its own.

    ``ZipFile.open`` gives the same, but in Python 3.11 each step back reads the member again from its start.
    """

    def __init__(self, path: Path, start: int, size: int) -> None:
        self._file = path.open("rb", buffering=0)
        self.start = start
        self._end = start + size
        self._file.seek(start)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell() - self.start

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: self.start, os.SEEK_CUR: self._file.tell(), os.SEEK_END: self._end}[whence]
        # A start before the window belongs to another member: zipfile takes the error for a damaged zip.
        if origin + offset < self.start:
            raise ValueError("seek before the start")
        return self._file.seek(origin + offset) - self.start

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        size = min(len(buffer), max(0, self._end - self._file.tell()))
        return self._file.readinto(memoryview(buffer)[:size])

    def close(self) -> None:
        self._file.close()
        super().close()
