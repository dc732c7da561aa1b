"""TIFFs with all channels of a sample: the pixels that were stored, in the order of the file, or a clear refusal."""

from itertools import product
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.errors import InputError
from pipeline.sources import images
from tests.fixtures.tiffs import Layout, tiff

LAYOUTS: list[Layout] = ["pages", "planes", "interleaved"]
ORDERS: list[Literal["<", ">"]] = ["<", ">"]


def channels(dtype: Any, planes: int = 4, side: int = 24) -> npt.NDArray[Any]:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (planes, side, side)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_planes_have_the_pixels_that_were_stored_in_their_order(layout: Layout, dtype: Any) -> None:
    expected = channels(dtype)
    for order, rows, deflate, differences in product(ORDERS, (5, 24), (False, True), (False, True)):
        if differences and not deflate:
            continue  # the format knows differences only of compressed values
        data = tiff(expected, layout, order=order, rows=rows, deflate=deflate, differences=differences)
        found = images.decode_planes(data, 4, deep=dtype == np.uint16)
        assert [plane.dtype for plane in found] == [dtype] * 4
        np.testing.assert_array_equal(np.stack(found), expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_photographs_tag_of_colours_changes_no_value(layout: Layout) -> None:
    expected = channels(np.uint16)
    np.testing.assert_array_equal(
        np.stack(images.decode_planes(tiff(expected, layout, tags={262: 2}), 4, deep=True)), expected
    )


@pytest.mark.parametrize(
    ("data", "deep", "match"),
    [
        (tiff(channels(np.uint16, 3), "pages"), True, r"3 pages or planes instead of 4, which pack\.planes .* lists"),
        (tiff(channels(np.uint16, 5), "interleaved"), True, "5 pages or planes instead of 4"),
        (tiff(channels(np.uint16, 1), "pages"), True, "1 pages or planes instead of 4"),
        (tiff(channels(np.uint16), "pages"), False, r"16 bits per pixel instead of 8: say in pack\.scaling"),
        (tiff(channels(np.uint8), "planes"), True, r"8 bits per pixel instead of 16, though pack\.scaling"),
        (tiff(channels(np.uint8), "pages", tags={262: 0}), False, "no intensities with 0 as black"),
        (tiff(channels(np.uint8), "interleaved", tags={262: 5}), False, "no intensities with 0 as black"),
        (tiff(channels(np.uint16), "planes", tags={339: 2}), True, "not all unsigned integers"),
        (tiff(channels(np.uint8)[:, :20], "pages"), False, "not square"),
        (tiff(channels(np.uint8), "pages", tags={256: 5000, 257: 5000}), False, "larger than 4096 x 4096"),
        (tiff(channels(np.uint8), "pages") + b"", True, "8 bits"),
        (images.encode_png(channels(np.uint8)[0]), False, r"not a TIFF file .* though pack\.planes"),
        (b"II*\0\xff\xff\xff\x7f", False, "truncated or damaged"),
        (b"II*\0\0\0\0\0", False, "truncated or damaged"),
    ],
)
def test_other_files_are_refused_with_the_reason(data: bytes, deep: bool, match: str) -> None:
    with pytest.raises(InputError, match=match):
        images.decode_planes(data, 4, deep=deep)


def test_pages_of_different_kinds_and_pages_without_end_are_refused() -> None:
    one, other = tiff(channels(np.uint8, 1), "pages"), tiff(channels(np.uint8, 1, 20), "pages")
    start = int.from_bytes(one[4:8], "little")
    following = start + 2 + 12 * int.from_bytes(one[start : start + 2], "little")
    # A file has one table of places, so the second image is moved there as a whole.
    moved = bytearray(one + other)
    begin = len(one) + int.from_bytes(other[4:8], "little")
    moved[following : following + 4] = begin.to_bytes(4, "little")
    with pytest.raises(InputError, match=r"truncated or damaged|different kinds"):
        images.decode_planes(bytes(moved), 4, deep=False)
    endless = bytearray(one)
    endless[following : following + 4] = start.to_bytes(4, "little")
    with pytest.raises(InputError, match="more than 64 pages"):
        images.decode_planes(bytes(endless), 4, deep=False)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_that_is_cut_is_refused(layout: Layout) -> None:
    data = tiff(channels(np.uint16), layout)
    for end in range(0, len(data) - 1, 97):
        with pytest.raises(InputError):
            images.decode_planes(data[:end], 4, deep=True)


SMALL = [tiff(channels(np.uint16, 4, 6), layout, deflate=deflate) for layout in LAYOUTS for deflate in (False, True)]


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(SMALL), st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=4)), max_size=3))
def test_changed_bytes_are_refused_or_give_images_of_the_size_they_state(
    whole: bytes, changes: list[tuple[float, bytes]]
) -> None:
    data = bytearray(whole)
    for place, new in changes:
        position = int(place * (len(data) - 1))
        data[position : position + len(new)] = new
    try:
        found = images.decode_planes(bytes(data), 4, deep=True)
    except InputError:
        return
    assert len(found) == 4  # a TIFF has no checksum
    assert all(plane.shape == found[0].shape and plane.dtype == np.uint16 for plane in found)
