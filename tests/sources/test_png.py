"""PNGs unpacked by libdeflate: the same pixels, and nothing accepted that was refused."""

import io
import struct
import zlib

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from pipeline.core.errors import InputError
from pipeline.sources import png
from tests.fixtures.archives import PNG_END, field

squares = st.integers(1, 40).flatmap(lambda side: arrays(np.uint8, (side, side)))
gray = field("gray", 300)[..., 0]  # more than one stored block


def encode(image: npt.NDArray[np.uint8], filters: int = cv2.IMWRITE_PNG_ALL_FILTERS) -> bytes:
    return cv2.imencode(".png", image, [cv2.IMWRITE_PNG_FILTER, filters])[1].tobytes()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_pixels(data: bytes, *parts: bytes) -> bytes:
    """The file with other chunks in place of its pixels."""
    return data[:33] + b"".join(parts) + PNG_END


def unpacked(data: bytes) -> bytes:
    return png.stored(data, png.read_header(data), list(png.chunks(data)))


def stream(data: bytes) -> bytes:
    return b"".join(data[part.begin + 8 : part.end - 4] for part in png.chunks(data) if part.kind == b"IDAT")


@settings(deadline=None)
@given(squares)
def test_the_image_stays_the_same(image: npt.NDArray[np.uint8]) -> None:
    data = unpacked(encode(image))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), image)


def test_the_pixels_are_stored() -> None:
    data = encode(gray, cv2.IMWRITE_PNG_FILTER_NONE)
    raw = np.pad(gray, ((0, 0), (1, 0))).tobytes()  # no filter is filter 0
    assert zlib.decompress(stream(unpacked(data))) == raw
    assert raw[60_000:65_000] in unpacked(data)


def test_pixels_in_several_chunks_and_words_beside_them() -> None:
    whole = encode(gray)
    pixels, word = stream(whole), chunk(b"tEXt", b"a\0b")
    split = with_pixels(whole, word, chunk(b"IDAT", pixels[:7]), chunk(b"IDAT", pixels[7:]), word)
    assert stream(unpacked(split)) == stream(unpacked(whole)) != pixels
    assert unpacked(split).count(word) == 2
    apart = with_pixels(whole, chunk(b"IDAT", pixels[:7]), word, chunk(b"IDAT", pixels[7:]))
    assert unpacked(apart) == apart


LINES = np.pad(gray, ((0, 0), (1, 0))).tobytes()
PACKED = zlib.compress(LINES)


@pytest.mark.parametrize(
    "pixels",
    [
        pytest.param(chunk(b"IDAT", PACKED)[:-1] + b"\0", id="another checksum of the chunk"),
        pytest.param(chunk(b"IDAT", PACKED[:-1] + b"\0"), id="another checksum of the pixels"),
        pytest.param(chunk(b"IDAT", PACKED[:-9]), id="ends early"),
        pytest.param(chunk(b"IDAT", zlib.compress(LINES[:-301])), id="a line too few"),
        pytest.param(chunk(b"IDAT", zlib.compress(LINES + LINES)), id="more than the image"),
        pytest.param(chunk(b"IDAT", zlib.compress(bytes(2**26))), id="a decompression bomb"),
        pytest.param(chunk(b"IDAT", b""), id="empty"),
        pytest.param(b"", id="no pixels"),
    ],
)
def test_what_is_not_in_order_is_left_to_opencv(pixels: bytes) -> None:
    data = with_pixels(encode(gray), pixels)
    assert unpacked(data) == data


def test_an_interlaced_image_is_left_to_opencv() -> None:
    whole = encode(gray)
    header = whole[16:28] + b"\1"
    data = whole[:8] + chunk(b"IHDR", header) + whole[33:]
    assert unpacked(data) == data


def test_a_chunk_that_claims_more_than_the_file() -> None:
    data = encode(gray)
    with pytest.raises(InputError, match="damaged"):
        list(png.chunks(data[:33] + struct.pack(">I", 2**31) + data[37:]))
