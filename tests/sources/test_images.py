"""Image files to arrays: the right pixels or a clear refusal, never anything between."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS
from pipeline.sources import images
from tests.fixtures.archives import PNG_END, field, png

REAL = Path("../shared/hpa")

squares = st.integers(1, 20).flatmap(lambda side: arrays(np.uint8, (side, side)))
noise = field("noise", 40)[..., 0]
colour_noise = png(field("rgb", 20)[..., :3].reshape(20, 60), colour=2)


def jpeg(rgb: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "TIFF", **options)
    return buffer.getvalue()


def turned(image: npt.NDArray[np.uint8], kind: str, orientation: int) -> bytes:
    """A file that asks to be turned when it is shown."""
    stored = Image.fromarray(image)
    tags = stored.getexif()
    tags[0x0112] = orientation
    buffer = io.BytesIO()
    stored.save(buffer, kind, exif=tags, **({"quality": 100} if kind == "JPEG" else {}))
    return buffer.getvalue()


def png_that_claims(side: int) -> bytes:
    """Write a header of a few bytes for an image of gigabytes."""
    small = png(noise)
    header = b"IHDR" + struct.pack(">II", side, side) + small[24:29]
    return small[:12] + header + struct.pack(">I", zlib.crc32(header)) + small[33:]


@settings(deadline=None)
@given(squares)
def test_png_pixels_survive_writing_and_reading(image: npt.NDArray[np.uint8]) -> None:
    assert np.array_equal(images.decode(images.encode_png(image), "green"), image)
    assert np.array_equal(images.decode(png(image), "green"), image)


def test_colour_png_keeps_its_channel_order() -> None:
    rgb = field("rgb", 8)[..., :3]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(images.encode_png(rgb)))), rgb)


def test_a_png_cut_anywhere_is_refused() -> None:
    whole = png(noise)
    for cut in range(len(whole)):
        with pytest.raises(InputError):
            images.decode(whole[:cut], "green")


def test_a_png_that_lacks_its_middle_is_refused() -> None:
    whole = png(noise)
    for cut in range(33, len(whole) - len(PNG_END)):
        with pytest.raises(InputError, match="damaged"):
            images.decode(whole[:cut] + PNG_END, "green")


def test_a_png_with_too_few_rows_but_right_checksums_is_refused() -> None:
    short = png(noise[:30])
    header = b"IHDR" + struct.pack(">II", 40, 40) + short[24:29]
    with pytest.raises(InputError, match="damaged"):
        images.decode(short[:12] + header + struct.pack(">I", zlib.crc32(header)) + short[33:], "green")


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(png(noise)) - 1), st.integers(1, 255))
def test_a_changed_byte_never_changes_pixels_unnoticed(position: int, change: int) -> None:
    data = bytearray(png(noise))
    data[position] ^= change
    try:
        image = images.decode(bytes(data), "green")
    except InputError:
        return
    assert np.array_equal(image, noise)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", png(noise)[:33], jpeg(np.zeros((8, 8, 3), np.uint8))[:-2]]))
def test_bytes_from_anywhere_are_refused(data: bytes, start: bytes) -> None:
    try:
        image = images.decode(start + data, "red")
    except InputError:
        return
    assert image.shape == (8, 8)  # JPEG has no checksum: all one can ask for is the size it states


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (png(field("x", 8)[..., :2].reshape(8, 16), depth=16), "16 bits"),
        (png(np.zeros((8, 1), np.uint8), depth=1), "1 bits"),
        (png(field("x", 8)[..., :3].reshape(8, 24), colour=2), "colour PNG"),
        (png(field("x", 8)[..., 0], colour=3), "colour PNG"),
        (png(field("x", 8)[..., :2].reshape(8, 16), colour=4), "colour PNG"),
        (png(np.zeros((8, 9), np.uint8)), "not square"),
        (png(np.zeros((1, images.MAX_SIDE + 1), np.uint8)), "larger than 4096"),
        (jpeg(np.zeros((8, 16, 3), np.uint8)), "not square"),
        (jpeg(np.zeros((8, images.MAX_SIDE + 8, 3), np.uint8)), "larger than 4096"),
        (jpeg(np.zeros((8, 8, 3), np.uint8))[:-2], "a truncated file"),
        (png_that_claims(60000), "larger than 4096"),
        (jpeg(np.zeros((8, 8, 3), np.uint8))[:-2] + b"\xff\xda" * images.MAX_SCANS + b"\xff\xd9", "scans"),
        (tiff(Image.fromarray(np.zeros((8, 8), np.uint16))), "a TIFF with 16 bits"),
        (tiff(Image.fromarray(np.zeros((8, 8, 3), np.uint8))), "a TIFF that is not grayscale"),
        (tiff(Image.new("1", (8, 8))), "a TIFF with 1 bits"),
        (tiff(Image.new("P", (8, 8))), "a TIFF that is not grayscale"),
        (tiff(Image.new("L", (8, 9))), "not square"),
        (tiff(Image.new("L", (1, images.MAX_SIDE + 1))), "larger than 4096"),
        (tiff(Image.new("L", (8, 8)), save_all=True, append_images=[Image.new("L", (8, 8))]), "several pages"),
        (b"II*\x00\xff\xff\xff\x7f", "truncated or damaged"),
        (b"", "neither"),
        (b"GIF89a", "neither"),
        (saved(Image.new("L", (8, 8)), "BMP"), "neither"),
        (saved(Image.new("L", (8, 8)), "JPEG2000"), "neither"),
        (saved(Image.new("RGB", (8, 8)), "WEBP"), "neither"),
        (saved(Image.new("L", (8, 8)), "TIFF", big_tiff=True), r"neither .*nor is BigTIFF read"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "neither"),
        (bytes(3000), "neither"),  # what an interrupted copy leaves
        (saved(Image.new("RGB", (8, 8)), "PNG"), "colour PNG"),
        (saved(Image.new("LA", (8, 8)), "PNG"), "colour PNG"),
        (tiff(Image.new("F", (8, 8))), "a TIFF with 32 bits"),
        (tiff(Image.new("LA", (8, 8))), "a TIFF that is not grayscale"),
        (tiff(Image.new("L", (8, 8)), compression="zstd"), "an unusual compression"),
        (tiff(Image.new("L", (8, 8)), compression="lzma"), "an unusual compression"),
    ],
)
def test_other_images_are_refused_with_the_reason(data: bytes, match: str) -> None:
    with pytest.raises(InputError, match=match):
        images.decode(data, "green")


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_a_tiff_has_the_pixels_that_were_stored_or_is_refused(compression: str | None) -> None:
    data = tiff(Image.fromarray(noise), compression=compression)
    np.testing.assert_array_equal(images.decode(data, "green"), noise)
    for end in range(0, len(data) - 1, 41):
        with pytest.raises(InputError):
            images.decode(data[:end], "green")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (b"gAMA", struct.pack(">I", 100_000)),
        (b"gAMA", struct.pack(">I", 45_455)),
        (b"sRGB", b"\0"),
        (b"tRNS", b"\0\x05"),
        (b"sBIT", b"\6"),
        (b"bKGD", b"\0\x06"),
        (b"pHYs", struct.pack(">IIB", 9000, 3000, 1)),
        (b"acTL", struct.pack(">II", 1, 0)),
    ],
)
def test_what_a_png_says_about_showing_it_changes_no_pixel(kind: bytes, content: bytes) -> None:
    data = png(noise)
    np.testing.assert_array_equal(images.decode(data[:33] + chunk(kind, content) + data[33:], "green"), noise)


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "tiff_lzw", "tiffinfo": {317: 2}},  # differences of neighbours are stored
        {"tiffinfo": {278: 7}},  # strips of seven rows
        {"dpi": (300, 100)},
        {"description": "ImageJ=1.53t\nimages=1\nmin=10.0\nmax=90.0\n"},  # only for showing
    ],
)
def test_a_tiff_of_a_microscope_s_program_has_the_pixels_that_were_stored(options: dict[str, Any]) -> None:
    np.testing.assert_array_equal(images.decode(tiff(Image.fromarray(noise), **options), "green"), noise)


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_grey_jpeg_is_the_stain_itself(channel: str, options: dict[str, bool]) -> None:
    data = saved(Image.fromarray(noise), "JPEG", quality=100, **options)
    assert np.abs(images.decode(data, channel).astype(int) - noise).max() <= 2


def test_a_big_endian_tiff_is_read() -> None:
    pixels = noise.tobytes()
    tags = [(256, 40), (257, 40), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 40)]
    entries = b"".join(struct.pack(">HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    entries += struct.pack(">HHII", 279, 4, 1, len(pixels))
    data = b"MM\x00*" + struct.pack(">I", 8 + len(pixels)) + pixels + struct.pack(">H", len(tags) + 1) + entries
    np.testing.assert_array_equal(images.decode(data + bytes(4), "green"), noise)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_pixels_are_read_as_they_are_stored(kind: str, orientation: int) -> None:
    smooth = np.add.outer(np.arange(0, 64, 4), np.arange(0, 128, 8)).astype(np.uint8)
    image = np.dstack([smooth] * 3) if kind == "JPEG" else smooth
    found = images.decode(turned(image, kind, orientation), "green")
    np.testing.assert_allclose(found.astype(int), smooth, atol=4)


def test_a_chunk_that_claims_more_than_the_file_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("OpenCV would ask for 4 GB")

    whole = png(noise)
    monkeypatch.setattr(images, "_decode", never)
    with pytest.raises(InputError, match="damaged"):
        images.decode(whole[:33] + b"\xff\x00\x00\x53" + whole[37:], "green")
    with pytest.raises(InputError, match="damaged"):
        images.decode_composite(colour_noise[:33] + b"\xff\x00\x00\x53" + colour_noise[37:])


@pytest.mark.parametrize(("channel", "expected"), [("red", 200), ("green", 100), ("blue", 30), ("yellow", 150)])
def test_a_jpeg_gives_the_stains_own_colour(channel: str, expected: int) -> None:
    flat = np.broadcast_to(np.array([200, 100, 30], np.uint8), (16, 16, 3)).copy()
    assert np.abs(images.decode(jpeg(flat), channel).astype(int) - expected).max() <= 2


def test_a_composite_has_the_pixels_that_pillow_reads() -> None:
    rgb = field("rgb", 40)[..., :3]
    for data, tolerance in ((png(rgb.reshape(40, 120), colour=2), 0), (jpeg(rgb), 2)):
        found = images.decode_composite(data)
        expected = np.asarray(Image.open(io.BytesIO(data))).astype(int)
        for position, channel in enumerate(("red", "green", "blue")):
            assert found[channel].shape == (40, 40)
            assert np.abs(found[channel] - expected[..., position]).max() <= tolerance


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(colour_noise) - 1), st.integers(1, 255))
def test_a_changed_byte_never_changes_a_composite_unnoticed(position: int, change: int) -> None:
    data = bytearray(colour_noise)
    data[position] ^= change
    try:
        found = images.decode_composite(bytes(data))
    except InputError:
        return
    assert np.array_equal(np.dstack([found[c] for c in ("red", "green", "blue")]), field("rgb", 20)[..., :3])


def grey_jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (png(noise), "a grayscale image instead of an RGB composite"),
        (png(field("x", 8)[..., :2].reshape(8, 16), colour=4), "a grayscale image"),
        (grey_jpeg(), "a grayscale image"),
        (images.encode_png(np.dstack([noise] * 3)), "a grayscale image"),
        (png(field("x", 8)[..., 0], colour=3), "a PNG with a palette or transparency: save it as RGB"),
        (png(field("x", 8).reshape(8, 32), colour=6), "a PNG with a palette or transparency"),
        (png(np.zeros((8, 48), np.uint8), depth=16, colour=2), "16 bits"),
        (png(np.zeros((8, 27), np.uint8), colour=2), "not square"),
        (colour_noise[:-20], "a truncated file"),
        (colour_noise[:33] + colour_noise[-12:], "damaged"),
        (jpeg(field("x", 8)[..., :3])[:-2], "a truncated file"),
        (b"II*\0", "neither"),
    ],
)
def test_other_composites_are_refused_with_the_reason(data: bytes, match: str) -> None:
    with pytest.raises(InputError, match=match):
        images.decode_composite(data)


@pytest.mark.skipif(not REAL.exists(), reason="no real images here")
@pytest.mark.parametrize("name", ["800_A6_1", "89_B5_1"])
def test_real_jpegs_keep_their_full_signal(name: str) -> None:
    for channel in CHANNELS:
        path = REAL / f"external_jpg/{name}_{channel}.jpg"
        stain = images.decode(path.read_bytes(), channel).astype(float)
        rgb = np.asarray(Image.open(path)).astype(float)
        own = {"red": rgb[..., 0], "green": rgb[..., 1], "blue": rgb[..., 2], "yellow": rgb[..., :2].mean(axis=2)}
        assert np.abs(stain - own[channel]).mean() < 1
        assert stain.max() >= 250


@pytest.mark.skipif(not REAL.exists(), reason="no real images here")
def test_real_full_size_fields_shrink_to_their_block_means() -> None:
    name = "5c27f04c-bb99-11e8-b2b9-ac1f6b6435d0"
    for channel in CHANNELS:
        image = images.decode((REAL / f"large/{name}_{channel}.png").read_bytes(), channel)
        means = image.reshape(512, 4, 512, 4).mean(axis=(1, 3))
        assert np.abs(images.fit(image, 512) - means).max() <= 0.5


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 6), st.data())
def test_shrinking_by_a_whole_factor_is_the_mean_of_blocks(size: int, factor: int, data: st.DataObject) -> None:
    image = data.draw(arrays(np.uint8, (size * factor, size * factor, 4)))
    means = image.reshape(size, factor, size, factor, 4).mean(axis=(1, 3))
    assert np.abs(images.shrink(image, size) - means).max() <= 0.5 + 1e-6


@pytest.mark.parametrize(("side", "size"), [(512, 128), (512, 96), (500, 32), (256, 256), (96, 64)])
def test_shrinking_quickly_is_shrinking_to_within_a_level(side: int, size: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 4), dtype=np.uint8)
    smooth = images.fit(images.fit(noise, 16), side)
    difference = images.shrink_quickly(smooth, size) - images.shrink(smooth, size).astype(int)
    assert difference.shape == (size, size, 4)
    assert np.abs(difference).max() <= 1
    assert abs(difference.mean()) < 0.5


def test_shrinking_by_a_broken_factor_weighs_pixels_by_their_area() -> None:
    image = np.array([[0, 60, 120]] * 3, np.uint8)
    assert images.shrink(image, 2).tolist() == [[20, 100], [20, 100]]  # (0 + 60/2) / 1.5 and (60/2 + 120) / 1.5


@settings(deadline=None)
@given(squares, st.integers(20, 40))
def test_enlarging_invents_no_brighter_or_darker_pixel(image: npt.NDArray[np.uint8], size: int) -> None:
    large = images.fit(image, size)
    assert large.shape == (size, size)
    assert image.min() <= large.min()
    assert large.max() <= image.max()


@settings(deadline=None)
@given(squares)
def test_statistics_are_numpys(image: npt.NDArray[np.uint8]) -> None:
    expected = (image.mean() / 255, image.std() / 255, np.mean(image == 255))
    assert images.statistics(image) == pytest.approx(expected, abs=1e-6)  # the index keeps six decimals


def test_merging_keeps_the_order_of_channels() -> None:
    image = field("merge")
    merged = np.empty_like(image)
    images.merge([np.ascontiguousarray(image[..., c]) for c in range(4)], merged)
    assert np.array_equal(merged, image)


@pytest.mark.parametrize("shape", [(33, 17, 4), (260, 270, 4)])  # looked up one by one, and in pairs
def test_look_up_gives_each_channel_its_own_table(shape: tuple[int, int, int]) -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, shape, dtype=np.uint8)
    table = random.integers(0, 256, (256, 4), dtype=np.uint8)
    expected = np.stack([table[:, channel][pixels[..., channel]] for channel in range(4)], axis=-1)
    np.testing.assert_array_equal(images.look_up(pixels, table), expected)
