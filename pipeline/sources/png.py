"""PNG files from strangers: what they hold, and their pixels unpacked sooner than OpenCV does it. libdeflate's home."""

import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import deflate

from pipeline.core.errors import InputError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_STORED = 65535
"""Bytes of the largest block that deflate can store."""


class Header(NamedTuple):
    """What a PNG says of itself."""

    width: int
    height: int
    depth: int
    """Bits of a value."""
    colour: int
    """0 is gray."""
    interlaced: bool


class Chunk(NamedTuple):
    """A part of the file: ``length``, ``kind``, content, CRC-32; it takes up ``begin`` to ``end``."""

    kind: bytes
    begin: int
    end: int


def read_header(data: bytes) -> Header:
    """Read the header of a file that begins with `SIGNATURE`.

    Raises:
        InputError: the file has no end.
    """
    if len(data) < 33 or _END not in data[-64:]:
        raise InputError("ends early: download it again")
    width, height, depth, colour, interlace = struct.unpack(">IIBB2xB", data[16:29])
    return Header(width, height, depth, colour, bool(interlace))


def chunks(data: bytes) -> Iterator[Chunk]:
    """List what a file holds.

    Raises:
        InputError: a chunk is longer than the file.
    """
    begin = len(SIGNATURE)
    while begin < len(data):
        # OpenCV sets aside whatever a chunk says it holds: 142 bytes could ask for 4 GB.
        length, kind = struct.unpack(">I4s", data[begin : begin + 8].ljust(8, b"\0"))
        end = begin + 12 + length
        if end > len(data):
            raise InputError("a damaged image: download it again")
        yield Chunk(kind, begin, end)
        begin = end


def stored(data: bytes, header: Header, parts: list[Chunk]) -> bytes:
    """Write a gray 8-bit PNG anew with its pixels as they are in place of deflated: the same image.

    libdeflate unpacks in half the time of the zlib inside OpenCV, to which the lines' filters are left. So is
    whatever is not in order: ``data`` itself is returned, for OpenCV to refuse it or to make the best of it.
    """
    pixels = [part for part in parts if part.kind == b"IDAT"]
    side_by_side = all(one.end == after.begin for one, after in pairwise(pixels))
    if header.interlaced or not pixels or not side_by_side:
        return data
    view = memoryview(data)
    if any(deflate.crc32(view[part.begin + 4 : part.end - 4]) != _crc(view, part) for part in pixels):
        return data
    size = (header.width + 1) * header.height  # a byte before each line names its filter
    try:
        lines = deflate.zlib_decompress(b"".join(view[part.begin + 8 : part.end - 4] for part in pixels), size)
    except deflate.DeflateError:
        return data
    if len(lines) != size:
        return data
    body = b"".join((b"IDAT\x78\x01", *_blocks(memoryview(lines)), struct.pack(">I", deflate.adler32(lines))))
    length, crc = struct.pack(">I", len(body) - 4), struct.pack(">I", deflate.crc32(body))
    return b"".join((view[: pixels[0].begin], length, body, crc, view[pixels[-1].end :]))


def _crc(data: memoryview, chunk: Chunk) -> int:
    return int.from_bytes(data[chunk.end - 4 : chunk.end], "big")


def _blocks(lines: memoryview) -> Iterator[bytes | memoryview]:
    """The stored blocks of a deflate stream (RFC 1951, 3.2.4)."""
    for start in range(0, len(lines), _STORED):
        block = lines[start : start + _STORED]
        yield struct.pack("<BHH", start + _STORED >= len(lines), len(block), len(block) ^ 0xFFFF)
        yield block
