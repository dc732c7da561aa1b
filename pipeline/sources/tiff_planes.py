"""Take the planes of a TIFF apart: four pages, four planes of a page, or four values in each pixel of a page.

Each plane becomes a TIFF of its own, whose directory points to the pixels in the original file, so that one decoder
reads them all. Values that are interleaved become one image that is as many times as wide.
"""

import struct
from typing import NamedTuple

from pipeline.core.errors import InputError
from pipeline.sources.tiff import SIGNATURES

_WIDTH, _HEIGHT, _DEPTH, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_OFFSETS, _SAMPLES, _ROWS, _COUNTS, _PLANAR, _PREDICTOR = 273, 277, 278, 279, 284, 317
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_COUNTS, _FORMAT = 322, 323, 324, 325, 339
_KEPT = (_HEIGHT, _COMPRESSION, _FILL_ORDER, _ROWS, _PREDICTOR, _TILE_HEIGHT, _FORMAT)
_READ = {
    *_KEPT, _WIDTH, _DEPTH, _PHOTOMETRIC, _OFFSETS, _SAMPLES, _COUNTS, _PLANAR, _TILE_WIDTH, _TILE_OFFSETS, _TILE_COUNTS
}  # fmt: skip
_SIZES = {1: "B", 3: "H", 4: "I"}
"""The types of whole numbers, as `struct` names them."""
_MOST_VALUES = 2**16
"""Maximum number of values of a tag: a file of 4096 px a side has at most 4096 rows of four planes."""
_MOST_PAGES = 64
_BLACK_IS_ZERO, _RGB = 1, 2
_SEPARATE, _DIFFERENCES, _UNSIGNED = 2, 2, 1


class Planes(NamedTuple):
    """The planes of a TIFF."""

    files: list[bytes]
    """A TIFF for each plane; if the values are interleaved, one TIFF that has them side by side."""
    interleaved: bool
    differences: bool
    """Whether interleaved values are differences from the pixel on the left, modulo the range of their type."""
    width: int
    height: int
    depth: int
    """Bits per value."""


Tags = dict[int, tuple[int, ...]]


def split(data: bytes, planes: int) -> Planes:
    """Take a file that begins with one of `SIGNATURES` apart.

    Raises:
        InputError: the file is truncated or damaged, has another number of planes, pages of different kinds, or values
            other than unsigned whole numbers of which 0 is black.
    """
    order = SIGNATURES[data[:4]]
    try:
        pages = _pages(data, order)
        first = pages[0]
        if any(_kind(page) != _kind(first) for page in pages):
            raise InputError("a TIFF with pages of different kinds: save the channels of a sample as equal pages")
        values = _one(first, _SAMPLES, 1)
        if (len(pages), values) not in ((planes, 1), (1, planes)):
            raise InputError(
                f"a TIFF with {len(pages) * values} pages or planes instead of {planes}, which pack.planes of "
                "params.yaml lists: save one for each channel"
            )
        if _one(first, _PHOTOMETRIC, _BLACK_IS_ZERO) not in (_BLACK_IS_ZERO, _RGB):
            raise InputError("a TIFF whose values are no intensities with 0 as black: save the channels as grayscale")
        if set(first.get(_FORMAT, (_UNSIGNED,))) != {_UNSIGNED} or len(set(first.get(_DEPTH, (1,)))) > 1:
            raise InputError("a TIFF whose values are not all unsigned integers of one size: convert it")
        separate = _one(first, _PLANAR, 1) == _SEPARATE
        interleaved = values > 1 and not separate
        differences = interleaved and _one(first, _PREDICTOR, 1) == _DIFFERENCES
        if differences and _TILE_OFFSETS in first:
            raise InputError("a TIFF of tiles of differences of interleaved values: save the channels as pages")
        if interleaved:
            files = [_file(data, order, first, planes)]
        elif values > 1:
            files = [_file(data, order, _plane(first, number, planes), 1) for number in range(planes)]
        else:
            files = [_file(data, order, page, 1) for page in pages]
        return Planes(files, interleaved, differences, first[_WIDTH][0], first[_HEIGHT][0], _one(first, _DEPTH, 1))
    except (struct.error, KeyError, IndexError):
        raise InputError("a truncated or damaged file: download it again") from None


def _pages(data: bytes, order: str) -> list[Tags]:
    """The tags of all pages."""
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    pages = list[Tags]()
    while start:
        if len(pages) == _MOST_PAGES:
            raise InputError(f"a TIFF with more than {_MOST_PAGES} pages: save the channels of each sample alone")
        (count,) = struct.unpack_from(f"{order}H", data, start)
        entries = [struct.unpack_from(f"{order}HHI4s", data, start + 2 + 12 * number) for number in range(count)]
        needed = {tag: rest for tag, *rest in entries if tag in _READ and rest[0] in _SIZES}
        pages.append({tag: _values(data, order, *rest) for tag, rest in needed.items()})
        (start,) = struct.unpack_from(f"{order}I", data, start + 2 + 12 * count)
    return pages


def _values(data: bytes, order: str, kind: int, number: int, field: bytes) -> tuple[int, ...]:
    if number > _MOST_VALUES:
        raise KeyError(number)
    text = f"{order}{number}{_SIZES[kind]}"
    inline = struct.calcsize(text) <= len(field)
    return struct.unpack_from(text, field if inline else data, 0 if inline else struct.unpack(f"{order}I", field)[0])


def _one(page: Tags, tag: int, default: int) -> int:
    return page[tag][0] if tag in page else default


def _kind(page: Tags) -> tuple[object, ...]:
    return tuple(page.get(tag) for tag in (_WIDTH, _HEIGHT, _DEPTH, _PHOTOMETRIC, _SAMPLES, _PLANAR, _FORMAT))


def _plane(page: Tags, number: int, planes: int) -> Tags:
    """The tags of one of the planes that a page stores one after the other."""
    found = dict(page)
    for tag in (_OFFSETS, _COUNTS, _TILE_OFFSETS, _TILE_COUNTS):
        if tag in page:
            each, rest = divmod(len(page[tag]), planes)
            if rest:
                raise KeyError(tag)
            found[tag] = page[tag][number * each : (number + 1) * each]
    return found


def _file(data: bytes, order: str, page: Tags, values: int) -> bytes:
    """A TIFF of one value per pixel from the pixels that the tags of a page point to, ``values`` times as wide."""
    tags: Tags = {tag: page[tag][:1] for tag in _KEPT if tag in page}
    tags[_WIDTH], tags[_DEPTH] = (page[_WIDTH][0] * values,), (_one(page, _DEPTH, 1),)
    tags[_PHOTOMETRIC], tags[_SAMPLES] = (_BLACK_IS_ZERO,), (1,)
    if values > 1:
        tags.pop(_PREDICTOR, None)  # it would take the differences of neighbouring values; `Planes.differences`
    tiled = _TILE_OFFSETS in page
    for tag in (_TILE_OFFSETS, _TILE_COUNTS) if tiled else (_OFFSETS, _COUNTS):
        tags[tag] = page[tag]
    if tiled:
        tags[_TILE_WIDTH] = (page[_TILE_WIDTH][0] * values,)
    start = len(data) + len(data) % 2  # at an even position, as the format wants it
    entries, beyond = b"", b""
    after = start + 2 + 12 * len(tags) + 4
    for tag in sorted(tags):
        content = struct.pack(f"{order}{len(tags[tag])}I", *tags[tag])
        if len(content) > 4:
            entries += struct.pack(f"{order}HHII", tag, 4, len(tags[tag]), after + len(beyond))
            beyond += content
        else:
            entries += struct.pack(f"{order}HHI", tag, 4, 1) + content
    directory = struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + beyond
    return b"".join((data[:4], struct.pack(f"{order}I", start), data[8:], bytes(start - len(data)), directory))
