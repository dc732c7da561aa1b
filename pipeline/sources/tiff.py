"""Read the header of untrusted TIFF files, so that nothing is decoded that is too large, of another kind, or turned."""

import struct
from typing import NamedTuple

from pipeline.core.errors import InputError

SIGNATURES = {b"II*\x00": "<", b"MM\x00*": ">"}
"""The first bytes of a file, and its byte order as `struct` names it. BigTIFF, for files above 4 GB, has others."""

_WIDTH, _HEIGHT, _DEPTH, _PHOTOMETRIC, _ORIENTATION, _SAMPLES, _FORMAT = 256, 257, 258, 262, 274, 277, 339
_SHORT, _LONG = 3, 4
_BLACK_IS_ZERO = 1
_UNSIGNED = 1
_MOST_TAGS = 1000


class FirstPage(NamedTuple):
    """What the first page of a TIFF is."""

    width: int
    height: int
    depth: int
    """Bits per value."""
    grayscale: bool
    """One value per pixel, where 0 is black."""
    pages: bool
    """Whether there is more than one page."""
    orientation: int | None
    """Where the value of the orientation tag is in the file, if there is such a tag."""
    unsigned: bool
    """Whether the values are unsigned integers."""


def read_header(data: bytes) -> FirstPage:
    """Read the header of a file that begins with one of `SIGNATURES`.

    Raises:
        InputError: the file is truncated or damaged.
    """
    order = SIGNATURES[data[:4]]
    try:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, start)
        entries = [struct.unpack_from(f"{order}HHI4s", data, start + 2 + 12 * n) for n in range(min(count, _MOST_TAGS))]
        (following,) = struct.unpack_from(f"{order}I", data, start + 2 + 12 * count)
        values = {tag: _first(data, order, kind, number, field) for tag, kind, number, field in entries}
        samples = values.get(_SAMPLES, 1)
        grayscale = samples == 1 and values.get(_PHOTOMETRIC) == _BLACK_IS_ZERO
        turned = [start + 10 + 12 * n for n, entry in enumerate(entries) if entry[0] == _ORIENTATION]
        return FirstPage(
            values[_WIDTH],
            values[_HEIGHT],
            values.get(_DEPTH, 1),
            grayscale,
            bool(following),
            next(iter(turned), None),
            values.get(_FORMAT, _UNSIGNED) == _UNSIGNED,
        )
    except (struct.error, KeyError):
        raise InputError("a truncated or damaged file: download it again") from None


def as_stored(data: bytes, header: FirstPage) -> bytes:
    """The file without its orientation, which OpenCV applies to TIFFs even if told not to."""
    if header.orientation is None:
        return data
    value = struct.pack(f"{SIGNATURES[data[:4]]}HH", 1, 0)
    return data[: header.orientation] + value + data[header.orientation + len(value) :]


def _first(data: bytes, order: str, kind: int, number: int, field: bytes) -> int:
    """The first value of a tag of whole numbers, 0 for a tag of others."""
    if kind == _SHORT:
        where = field if number <= 2 else data[struct.unpack(f"{order}I", field)[0] :]
        return int(struct.unpack_from(f"{order}H", where)[0])
    if kind == _LONG and number == 1:
        return int(struct.unpack(f"{order}I", field)[0])
    return 0
