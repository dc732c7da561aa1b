"""OpenCV's only home: image files to arrays and back, changes of size, statistics of a channel."""

import struct

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.core.errors import InputError
from pipeline.sources import png

Image = npt.NDArray[np.uint8]

MAX_SIDE = 4096
"""Pixels; the atlas's largest fields have 3072. A file that claims more is not worth the memory."""

MAX_SCANS = 64
"""Of a progressive JPEG; usual ones have ten, and each costs a pass over the whole image."""

VERSION = str(cv2.__version__)
"""Another OpenCV may decode or round otherwise."""

_JPEG, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_JPEG_SCAN = b"\xff\xda"

_FEW_PIXELS = 2**16
"""Up to here a joint table costs more than it spares, by measurement."""

_QUARTERS = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}

# Callers run one image a thread, and OpenCV's own threads would fight theirs for the cores.
cv2.setNumThreads(0)


def decode(data: bytes, channel: str) -> Image:
    """Decode one stain of a sample: an 8-bit gray PNG, or an RGB JPEG as the Human Protein Atlas serves them.

    A JPEG shows the stain in its own colour, so its signal is R for red, G for green, B for blue and the mean
    of R and G for yellow; a conversion to gray would scale the stains by 0.30, 0.59 and 0.11.

    Args:
        data: the file's bytes.
        channel: one of ``labels.CHANNELS``.

    Returns:
        (S, S) uint8.

    Raises:
        InputError: the bytes are no such image, or not all of it; the message names the fault and what to do,
            the caller knows the file.
    """
    if data.startswith(png.SIGNATURE):
        return _decode(_checked_png(data), cv2.IMREAD_GRAYSCALE)
    if data.startswith(_JPEG):
        _check_jpeg(data)
        return _stain(_decode(data, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION), channel)
    raise InputError("neither a PNG nor a JPEG image: download it again")


def encode_png(image: Image) -> bytes:
    """Encode (H, W) gray or (H, W, 3) RGB uint8 as PNG, quickly rather than tightly."""
    stored = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", stored)[1].tobytes()


def encode_webp(image: Image, quality: int) -> bytes:
    """Encode (H, W) gray or (H, W, 3) RGB uint8 as WebP, with losses; ``quality`` is 1 to 100."""
    stored = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".webp", stored, [cv2.IMWRITE_WEBP_QUALITY, quality])[1].tobytes()


def shrink(image: Image, size: int) -> Image:
    """Shrink (H, W) or (H, W, C) uint8 to (size, size[, C]) by area: each pixel is the mean of what it covers."""
    if image.shape[:2] == (size, size):
        return image
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def shrink_quickly(image: Image, size: int) -> Image:
    """As `shrink`, by halves for as long as they can be taken: for what a network sees, in a third of the time.

    Each halving rounds, halves upwards: a value is brighter by an eighth of a grey level a halving on average. Where
    a broken factor is left, pixels at the seams of its windows count by the halved image's pixel.
    """
    while len(image) >= 2 * size and len(image) % 2 == 0:
        image = shrink(image, len(image) // 2)
    return shrink(image, size)


def fit(image: Image, size: int) -> Image:
    """Bring a square image to (size, size[, C]): by area when it is larger, linearly when it is smaller.

    Linear and not cubic, because cubic weights overshoot: bright spots would get dark rings that no cell has.
    """
    if image.shape[0] >= size:
        return shrink(image, size)
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)


def merge(channels: list[Image], into: Image) -> None:
    """Interleave (H, W) channels into an array (H, W, C)."""
    cv2.merge(channels, into)


def statistics(image: Image) -> tuple[float, float, float]:
    """Mean and standard deviation of (H, W) uint8 as shares of white, and the share of pixels that are white."""
    # Not by meanStdDev and threshold: their 512-bit instructions make many processors lower their clock for a while,
    # and the decoding of the next image took six per cent longer.
    mean = cv2.norm(image, cv2.NORM_L1) / image.size
    variance = cv2.norm(image, cv2.NORM_L2SQR) / image.size - mean**2  # of whole numbers below 2**53, so exact sums
    return mean / 255, max(variance, 0.0) ** 0.5 / 255, np.count_nonzero(image == 255) / image.size


def _checked_png(data: bytes) -> bytes:
    """The file, or the same image in a form that is read sooner."""
    header = png.read_header(data)
    if header.depth != 8:
        raise InputError(f"a PNG of {header.depth} bits a pixel where 8 are needed: convert it, choosing how to scale")
    if header.colour != 0:
        raise InputError("a colour PNG where gray is needed: save the stain's own channel as gray")
    _check_size(header.width, header.height)
    return png.stored(data, header, list(png.chunks(data)))


def _check_jpeg(data: bytes) -> None:
    if _JPEG_END not in data[-64:]:
        raise InputError("ends early: download it again")
    if data.count(_JPEG_SCAN) > MAX_SCANS:
        raise InputError(f"a JPEG of more than {MAX_SCANS} scans, made to keep a reader busy: get the original")
    position = 2
    while position + 9 <= len(data):
        marker, length = struct.unpack(">HH", data[position : position + 4])
        # Start of frame: C0..CF, except for the tables C4, C8 and CC that share the range.
        if 0xFFC0 <= marker <= 0xFFCF and marker not in (0xFFC4, 0xFFC8, 0xFFCC):
            height, width = struct.unpack(">HH", data[position + 5 : position + 9])
            return _check_size(width, height)
        position += 2 + length
    raise InputError("a damaged image: download it again")


def _check_size(width: int, height: int) -> None:
    if not 0 < max(width, height) <= MAX_SIDE:
        raise InputError(f"larger than {MAX_SIDE} pixels a side: shrink it first")
    if width != height:
        raise InputError("not square, and stretching would change the shape of cells: crop or pad it")


def _decode(data: bytes, flags: int) -> Image:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        raise InputError("a damaged image: download it again")
    return image.astype(np.uint8, copy=False)


def _stain(rgb: Image, channel: str) -> Image:
    red, green, blue = cv2.split(rgb)
    if channel == "yellow":
        return cv2.addWeighted(red, 0.5, green, 0.5, 0).astype(np.uint8, copy=False)
    return {"red": red, "green": green, "blue": blue}[channel].astype(np.uint8, copy=False)


def look_up(image: Image, table: npt.NDArray[np.uint8]) -> Image:
    """Replace each value of (H, W, 4) uint8 by what ``table`` (256, 4) uint8 says of it in its channel.

    Of a large image two channels at a time, as one 16-bit number of which a joint table knows the answer: OpenCV
    looks up half as many numbers, in two thirds of the time.
    """
    if image.shape[0] * image.shape[1] <= _FEW_PIXELS:
        return cv2.LUT(image, table[None]).astype(np.uint8, copy=False)
    wide = table.astype(np.uint32)
    low, high = wide[:, 0] | wide[:, 2] << 16, wide[:, 1] << 8 | wide[:, 3] << 24  # of either pair side by side
    joint = np.bitwise_or.outer(high, low).astype("<u4", copy=False).view("<u2").reshape(1, 65536, 2)
    return cv2.LUT(image.view("<u2"), joint).view(np.uint8)


def turn(image: Image, quarters: int, *, mirror: bool) -> Image:
    """Mirror (S, S, C) uint8 from left to right or not, then turn it counterclockwise; ``image`` itself for neither."""
    mirrored = cv2.flip(image, 1) if mirror else image
    turned = cv2.rotate(mirrored, _QUARTERS[quarters]) if quarters else mirrored
    return turned.astype(np.uint8, copy=False)


def warp(image: Image, matrix: npt.NDArray[np.float64]) -> Image:
    """Move the pixels of (H, W, C) uint8 to ``matrix`` (2, 3) times (x, y, 1); bilinear, mirrored at the edges.

    The edges are laid out before the warp and not looked up by it, which gives the same pixels and spares two
    thirds of the time where a rotation brings in many of them.
    """
    height, width = image.shape[:2]
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]])
    seen = corners @ cv2.invertAffineTransform(matrix).T  # 4, 2: where the result's corners come from
    before = np.maximum(np.ceil(-seen.min(axis=0)), 0).astype(int) + 2  # x, y; 2 for the interpolation
    after = np.maximum(np.ceil(seen.max(axis=0) - (width, height)), 0).astype(int) + 2
    laid_out = cv2.copyMakeBorder(image, before[1], after[1], before[0], after[0], cv2.BORDER_REFLECT_101)
    moved = matrix.copy()
    moved[:, 2] -= matrix[:, :2] @ before
    return cv2.warpAffine(laid_out, moved, (width, height), flags=cv2.INTER_LINEAR).astype(np.uint8, copy=False)


def add(image: Image, noise: Image, share: float, into: Image | None = None) -> Image:
    """``image + share * (noise - 128)``, rounded and kept within 0..255; all of one shape, uint8.

    The result is ``into``, where that is given: a copy of a large image costs as much as a good part of the sum.
    """
    return cv2.addWeighted(image, 1, noise, share, -128 * share, into).astype(np.uint8, copy=False)
