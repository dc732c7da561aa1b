"""Read the members of untrusted zip archives: in place, from many threads, with limits on their size."""

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

from pipeline.core import stray_files
from pipeline.core.errors import InputError

MAX_BYTES = 32 * 2**20
"""Maximum size of a file. All images and tables of a competition are smaller; a larger one may be a zip bomb."""

MAX_DEEP_BYTES = 129 * 2**20
"""The same where images have 16 bits or are the planes of one file: four planes of 4096 x 4096 16-bit values."""

# Exceptions that zipfile raises for invalid zips; OSError comes from seeks to invalid positions.
_FAULTS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError, OverflowError, OSError)
_ENCRYPTED = 1  # bit of a member's flags
_HEADER = b"PK\x03\x04"
WRAP = 2**32
"""Positions in a zip without zip64 are stored modulo this."""


class Stored(NamedTuple):
    """A member of a zip. It is kept small, because an archive can have 300,000 members."""

    where: str
    """Path inside the source's folder, with zips as folders."""
    descriptor: int
    header: int
    """Offset of the local header in the file."""
    packed: int
    size: int
    crc: int
    readable: bool
    deflated: bool

    def read(self, limit: int = MAX_BYTES) -> bytes:
        """Read and check the member. Thread-safe, and threads do not wait for each other as with ``ZipFile``.

        Raises:
            InputError: the member is damaged, encrypted or too large; the message does not name the member.
        """
        if max(self.size, self.packed) > limit:
            raise InputError(f"larger than {limit >> 20} MiB, unlike any file of a competition: remove it")
        if not self.readable:
            raise InputError("encrypted, or compressed by a method other than deflate: create the zip again")
        try:
            data = os.pread(self.descriptor, self.packed, _data_start(self.descriptor, self.header))
            if self.deflated:
                # Up to the stated size (0 would be no limit): a member with a false size must not fill the memory.
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, max(self.size, 1))
        except _FAULTS:
            data = b""
        if len(data) != self.size or zlib.crc32(data) != self.crc:
            raise InputError("damaged in its zip: download the archive again")
        return data

    def stamp(self) -> str:
        """Return a text that changes whenever the contents do, without reading them."""
        return f"{self.size} {self.crc}"


def members(path: Path, within: PurePosixPath, stack: ExitStack) -> Iterator[Stored]:
    """List the files of a zip, including those of zips inside it, which appear as folders.

    Args:
        path: the zip; zip64 is supported.
        within: its path inside the source's folder.
        stack: keeps the zip open; members can be read until the stack is closed.

    Raises:
        InputError: the zip is damaged, or contains a link, an unsafe file name, or a zip that cannot be read in place.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is not a regular file: remove it")  # reading a pipe could block forever
    try:
        file = stack.enter_context(path.open("rb"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): copy it again") from None
    yield from _members(path, file, file.fileno(), within)


def is_zip(name: PurePath) -> bool:
    """Whether a file is a zip by its name; ``._train.zip`` is macOS metadata of train.zip and not a zip."""
    return name.suffix.lower() == ".zip" and not name.name.startswith(".")


def _members(path: Path, file: io.BufferedReader, descriptor: int, within: PurePosixPath) -> Iterator[Stored]:
    """Members of the zip in ``file``, which is all or a part of the file at ``path``, open as ``descriptor``."""
    start = file.raw.start if isinstance(file.raw, _Window) else 0
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
    except _FAULTS as error:
        raise InputError(f"{path} is not a complete zip archive ({error}): download it again") from None
    _unwrap_offsets(infos, descriptor, start)
    for info in infos:
        name = within / _safe_name(path, info)
        header = start + info.header_offset
        if any(part.startswith(".") or stray_files.is_stray_folder(part) for part in name.parts[:-1]):
            continue  # such as __MACOSX, and a recycle bin of a packed disk
        if is_zip(name):
            with _inner_zip(path, file, info, descriptor) as inner:
                yield from _members(path, inner, descriptor, name)
        elif not info.is_dir():
            deflated = info.compress_type == zipfile.ZIP_DEFLATED
            # zipfile decompresses other methods without a limit, so a small member could fill the memory.
            readable = (deflated or info.compress_type == zipfile.ZIP_STORED) and not info.flag_bits & _ENCRYPTED
            yield Stored(
                str(name), descriptor, header, info.compress_size, info.file_size, info.CRC, readable, deflated
            )


def _unwrap_offsets(infos: list[zipfile.ZipInfo], descriptor: int, start: int) -> None:
    """Correct the positions of the members of a zip of more than 4 GB that macOS's Archive Utility has made.

    It writes no zip64 fields, only the lowest 32 bits of each position. No member is as large as 4 GB, and the
    directory lists them in the order of their positions, so a position that is lower than the one before has passed
    another 4 GB. ``zipfile`` takes the difference between the directory's real and stated position for data in front of
    the zip, and adds it to all positions.

    Args:
        infos: the members, changed in place.
        descriptor: of the file.
        start: where the zip begins in it.
    """
    if not infos or _is_header(descriptor, start + infos[0].header_offset):
        return
    if not _is_header(descriptor, start + infos[0].header_offset % WRAP):
        return  # damaged in another way, of which reading the member tells
    passed = before = 0
    for info in infos:
        position = info.header_offset % WRAP
        passed += WRAP * (position < before)
        before = position
        info.header_offset = position + passed


def _is_header(descriptor: int, position: int) -> bool:
    try:
        return os.pread(descriptor, len(_HEADER), position) == _HEADER
    except _FAULTS:  # no position in any file
        return False


def _safe_name(path: Path, info: zipfile.ZipInfo) -> PurePosixPath:
    stored = info.filename
    name = PurePosixPath(stored.replace("\\", "/"))  # some Windows tools write backslashes
    if name.is_absolute() or ".." in name.parts or not stored.isprintable():
        raise InputError(f"{path} contains an unsafe file name, {stored!r}: get the archive from its original source")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise InputError(f"{path} contains a link, {stored}, which may point anywhere: create the zip without links")
    return name


def _inner_zip(path: Path, file: io.BufferedReader, info: zipfile.ZipInfo, descriptor: int) -> io.BufferedReader:
    if info.compress_type != zipfile.ZIP_STORED or isinstance(file.raw, _Window):
        raise InputError(
            f"{path}: the zip {info.filename} inside it cannot be read in place, because it is compressed "
            f"or nested twice: unpack {path.name}, delete it, and run the command again"
        )
    try:
        return io.BufferedReader(_Window(path, _data_start(descriptor, info.header_offset), info.file_size))
    except _FAULTS:
        raise InputError(f"{path} is damaged at {info.filename}: download it again") from None


def _data_start(descriptor: int, header: int) -> int:
    """Offset of a member's data: after its local header, whose name and extra field have their own lengths."""
    signature, name, extra = struct.unpack("<4s22xHH", os.pread(descriptor, 30, header))
    if signature != _HEADER:
        raise zipfile.BadZipFile("no member at the position given in the directory")
    return header + 30 + int(name) + int(extra)


class _Window(io.RawIOBase):
    """A part of a file as a file object.

    ``ZipFile.open`` does the same, but in Python 3.11 each backward seek reads the member again from its start.
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
        # Bytes before the window belong to another member; zipfile reports this error as a damaged zip.
        if origin + offset < self.start:
            raise ValueError("seek before the start of the member")
        return self._file.seek(origin + offset) - self.start

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        size = min(len(buffer), max(0, self._end - self._file.tell()))
        return self._file.readinto(memoryview(buffer)[:size])

    def close(self) -> None:
        self._file.close()
        super().close()
