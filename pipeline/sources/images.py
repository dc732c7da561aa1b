"""Image operations with OpenCV: decode and encode files, resize, transform, compute statistics."""

import struct
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.core.errors import InputError
from pipeline.sources import png, tiff, tiff_planes

Image = npt.NDArray[np.uint8]
DeepImage = npt.NDArray[np.uint16]

MAX_SIDE = 4096
"""Maximum side in pixels, which bounds the memory; the atlas's largest images have 3072."""

MAX_SCANS = 64
"""Maximum number of scans of a progressive JPEG. Usual files have ten; each is a pass over the whole image."""

VERSION = str(cv2.__version__)
"""OpenCV's version; other versions may decode or round differently."""

NOT_DEEP = (
    "though pack.scaling of params.yaml names this source: all its images must have 16 bits; remove it there, or "
    "convert them"
)
"""Part of a message on files of a source whose images have 16 bits."""

_JPEG, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_JPEG_SCAN = b"\xff\xda"

# Pixels as they are stored: an orientation tag in one of four files would turn it against its companions.
_GRAY = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION
_COLOUR = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
_DEEP = _GRAY | cv2.IMREAD_ANYDEPTH

_FEW_PIXELS = 2**16
"""Up to this number of pixels, building a joint table takes longer than it saves (measured)."""

_QUARTERS = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}

# Callers process one image per thread; threads of OpenCV's own would compete with them for the cores.
cv2.setNumThreads(0)
# What is wrong with a file is said by this project's messages.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def decode(data: bytes, channel: str) -> Image:
    """Decode one stain of a sample: an 8-bit grayscale PNG or TIFF, or an RGB JPEG from the Human Protein Atlas.

    A JPEG shows the stain in its own colour, so its intensity is R for red, G for green, B for blue, and the mean of
    R and G for yellow. A conversion to grayscale would scale the stains by 0.30, 0.59 and 0.11.

    Args:
        data: the file's bytes.
        channel: one of ``labels.CHANNELS``.

    Returns:
        (S, S) uint8.

    Raises:
        InputError: the data is not such an image, or is incomplete; the message does not name the file.
    """
    if data.startswith(png.SIGNATURE):
        return _decode(_checked_png(data), _GRAY)
    if data[:4] in tiff.SIGNATURES:
        return _decode(_checked_tiff(data), _GRAY)
    if data.startswith(_JPEG):
        _check_jpeg(data)
        return _stain(_decode(data, _COLOUR), channel)
    raise InputError(
        "neither a PNG, a TIFF nor a JPEG file (nor is BigTIFF read): download it again, or save it as one of these"
    )


def decode_deep(data: bytes) -> DeepImage:
    """Decode one stain of a sample that is stored with 16 bits per pixel: a grayscale PNG or TIFF.

    Returns:
        (S, S) uint16, the values as they are stored.

    Raises:
        InputError: the data is not such an image, or is incomplete; the message does not name the file.
    """
    if data.startswith(png.SIGNATURE):
        _check_gray_png(png.read_header(data), 16)
        list(png.chunks(data))
    elif data[:4] in tiff.SIGNATURES:
        header = tiff.read_header(data)
        _check_gray_tiff(header, 16)
        data = tiff.as_stored(data, header)
    else:
        raise InputError(f"neither a PNG nor a TIFF file (nor is BigTIFF read), {NOT_DEEP}")
    return _decode_deep(data)


def decode_planes(data: bytes, planes: int, *, deep: bool) -> list[Image] | list[DeepImage]:
    """Decode a TIFF that has all channels of a sample, as pages or as planes of one page.

    Args:
        data: the file's bytes.
        planes: number of channels.
        deep: whether the values have 16 bits, and not 8.

    Returns:
        The channels in the order of the file, each (S, S) uint16 or uint8.

    Raises:
        InputError: the data is not such an image, or is incomplete; the message does not name the file.
    """
    if data[:4] not in tiff.SIGNATURES:
        raise InputError("not a TIFF file (nor is BigTIFF read), though pack.planes of params.yaml names this source")
    found = tiff_planes.split(data, planes)
    _check_depth("TIFF", found.depth, 16 if deep else 8)
    _check_size(found.width, found.height)
    images: list[Any] = [_decode_deep(file) if deep else _decode(file, _GRAY) for file in found.files]
    if found.interleaved:
        pixels = images[0].reshape(found.height, found.width, planes)
        if found.differences:
            pixels = np.cumsum(pixels, axis=1, dtype=pixels.dtype)
        images = [np.ascontiguousarray(pixels[..., plane]) for plane in range(planes)]
    return images


def decode_composite(data: bytes) -> dict[str, Image]:
    """Decode three stains of a sample from one RGB image: an 8-bit PNG without transparency, or a JPEG.

    Returns:
        The channels red, green and blue, each (S, S) uint8.

    Raises:
        InputError: the data is not such an image, is incomplete, or is grayscale, also if stored as RGB; the message
            does not name the file.
    """
    if data.startswith(png.SIGNATURE):
        _check_colour_png(data)
    elif data.startswith(_JPEG):
        _check_jpeg(data)
    else:
        raise InputError("neither a PNG nor a JPEG file: download it again")
    red, green, blue = (plane.astype(np.uint8, copy=False) for plane in cv2.split(_decode(data, _COLOUR)))
    if np.array_equal(red, green) and np.array_equal(green, blue):
        raise InputError(
            "a grayscale image instead of an RGB composite: predict single stains as separate files, such as "
            "ID_green.png"
        )
    return {"red": red, "green": green, "blue": blue}


def encode_png(image: Image) -> bytes:
    """Encode (H, W) grayscale or (H, W, 3) RGB uint8 as PNG, with fast rather than strong compression."""
    stored = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", stored)[1].tobytes()


def encode_webp(image: Image, quality: int) -> bytes:
    """Encode (H, W) grayscale or (H, W, 3) RGB uint8 as lossy WebP; ``quality`` is 1 to 100."""
    stored = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".webp", stored, [cv2.IMWRITE_WEBP_QUALITY, quality])[1].tobytes()


def shrink(image: Image, size: int) -> Image:
    """Shrink (H, W) or (H, W, C) uint8 to (size, size[, C]) by area: each pixel is the mean of the pixels it covers."""
    if image.shape[:2] == (size, size):
        return image
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def shrink_quickly(image: Image, size: int) -> Image:
    """Like `shrink`, but halve the image repeatedly first, in a third of the time; for the input of models.

    Each halving rounds half up, which makes the image brighter by 1/8 of a grey level on average. If the remaining
    factor is not an integer, the area weights at window borders are those of the halved image's pixels.
    """
    while len(image) >= 2 * size and len(image) % 2 == 0:
        image = shrink(image, len(image) // 2)
    return shrink(image, size)


def fit(image: Image, size: int) -> Image:
    """Resize a square image to (size, size[, C]): shrink by area, or enlarge by linear interpolation.

    Cubic interpolation is not used because it overshoots: bright spots would get dark rings around them.
    """
    if image.shape[0] >= size:
        return shrink(image, size)
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)


def merge(channels: list[Image], into: Image) -> None:
    """Interleave C channels (H, W) into an existing array (H, W, C)."""
    cv2.merge(channels, into)


def statistics(image: Image) -> tuple[float, float, float]:
    """Mean and standard deviation of (H, W) uint8 as fractions of 255, and the share of pixels with the value 255."""
    # Without meanStdDev and threshold: their 512-bit instructions make many processors lower their clock rate for a
    # while, and decoding the next image took 6 % longer.
    mean = cv2.norm(image, cv2.NORM_L1) / image.size
    variance = cv2.norm(image, cv2.NORM_L2SQR) / image.size - mean**2  # sums of integers below 2**53 are exact
    return mean / 255, max(variance, 0.0) ** 0.5 / 255, np.count_nonzero(image == 255) / image.size


def look_up(image: Image, table: npt.NDArray[np.uint8]) -> Image:
    """Map each value of (H, W, 4) uint8 by ``table`` (256, 4) uint8, which has a column per channel.

    For large images, two channels are looked up at once, as a 16-bit index into a joint table: half as many look-ups,
    in two thirds of the time.
    """
    if image.shape[0] * image.shape[1] <= _FEW_PIXELS:
        return cv2.LUT(image, table[None]).astype(np.uint8, copy=False)
    wide = table.astype(np.uint32)
    low, high = wide[:, 0] | wide[:, 2] << 16, wide[:, 1] << 8 | wide[:, 3] << 24  # both pairs of channels
    joint = np.bitwise_or.outer(high, low).astype("<u4", copy=False).view("<u2").reshape(1, 65536, 2)
    return cv2.LUT(image.view("<u2"), joint).view(np.uint8)


def turn(image: Image, quarters: int, *, mirror: bool) -> Image:
    """Mirror (S, S, C) uint8 horizontally, then rotate it counterclockwise by quarter turns; may return ``image``."""
    mirrored = cv2.flip(image, 1) if mirror else image
    turned = cv2.rotate(mirrored, _QUARTERS[quarters]) if quarters else mirrored
    return turned.astype(np.uint8, copy=False)


def warp(image: Image, matrix: npt.NDArray[np.float64]) -> Image:
    """Apply an affine transform to (H, W, C) uint8; a pixel at (x, y) moves to ``matrix`` (2, 3) @ (x, y, 1).

    Interpolation is bilinear, with mirrored edges. The edges are padded before the warp instead of by it: the result
    is the same, and rotations that show much of the padding take a third of the time.
    """
    height, width = image.shape[:2]
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]])
    origins = corners @ cv2.invertAffineTransform(matrix).T  # 4, 2: source positions of the result's corners
    before = np.maximum(np.ceil(-origins.min(axis=0)), 0).astype(int) + 2  # x, y; 2 pixels for interpolation
    after = np.maximum(np.ceil(origins.max(axis=0) - (width, height)), 0).astype(int) + 2
    padded = cv2.copyMakeBorder(image, before[1], after[1], before[0], after[0], cv2.BORDER_REFLECT_101)
    padded_matrix = matrix.copy()
    padded_matrix[:, 2] -= matrix[:, :2] @ before
    return cv2.warpAffine(padded, padded_matrix, (width, height), flags=cv2.INTER_LINEAR).astype(np.uint8, copy=False)


def add(image: Image, noise: Image, share: float, into: Image | None = None) -> Image:
    """``image + share * (noise - 128)``, rounded and clipped to 0..255; uint8 arrays of one shape.

    The result is written to ``into`` if it is given, because a copy of a large image takes a good part of the time.
    """
    return cv2.addWeighted(image, 1, noise, share, -128 * share, into).astype(np.uint8, copy=False)


def _checked_png(data: bytes) -> bytes:
    """Check a PNG; return it, or the same image in a form that OpenCV decodes faster."""
    header = png.read_header(data)
    _check_gray_png(header, 8)
    return png.stored(data, header, list(png.chunks(data)))


def _check_gray_png(header: png.Header, depth: int) -> None:
    _check_depth("PNG", header.depth, depth)
    if header.colour != 0:
        raise InputError("a colour PNG instead of a grayscale one: save the stain's channel as grayscale")
    _check_size(header.width, header.height)


def _check_colour_png(data: bytes) -> None:
    header = png.read_header(data)
    if header.depth != 8:
        raise InputError(f"a PNG with {header.depth} bits per pixel instead of 8: convert it, with a suitable scale")
    if header.colour in png.NOT_RGB:
        raise InputError("a PNG with a palette or transparency: save it as RGB")
    _check_size(header.width, header.height)
    list(png.chunks(data))


def _checked_tiff(data: bytes) -> bytes:
    header = tiff.read_header(data)
    _check_gray_tiff(header, 8)
    return tiff.as_stored(data, header)


def _check_gray_tiff(header: tiff.FirstPage, depth: int) -> None:
    if header.pages:
        raise InputError(
            "a TIFF with several pages: save each stain as a file of its own, such as ID_green.tif; if the pages are "
            "the channels of a sample, name the file ID.tif and list them in pack.planes of params.yaml"
        )
    if not header.grayscale:
        raise InputError("a TIFF that is not grayscale with 0 as black: save the stain's channel as grayscale")
    _check_depth("TIFF", header.depth, depth)
    if depth == 16 and not header.unsigned:
        raise InputError("a TIFF whose values are not unsigned integers: convert it, with a suitable scale")
    _check_size(header.width, header.height)


def _check_depth(kind: str, found: int, wanted: int) -> None:
    if found == wanted:
        return
    if wanted == 16:
        raise InputError(f"a {kind} with {found} bits per pixel instead of 16, {NOT_DEEP}")
    if found == 16:
        raise InputError(
            f"a {kind} with 16 bits per pixel instead of 8: say in pack.scaling of params.yaml which values of this "
            "source become white, or convert it, with a suitable scale"
        )
    raise InputError(f"a {kind} with {found} bits per pixel instead of 8: convert it, with a suitable scale")


def _check_jpeg(data: bytes) -> None:
    if _JPEG_END not in data[-64:]:
        raise InputError("a truncated file: download it again")
    if data.count(_JPEG_SCAN) > MAX_SCANS:
        raise InputError(
            f"a JPEG with more than {MAX_SCANS} scans, a possible decompression bomb: get the original file"
        )
    position = 2
    while position + 9 <= len(data):
        marker, length = struct.unpack(">HH", data[position : position + 4])
        # Start of frame: C0..CF, except C4, C8 and CC, which are other segments.
        if 0xFFC0 <= marker <= 0xFFCF and marker not in (0xFFC4, 0xFFC8, 0xFFCC):
            height, width = struct.unpack(">HH", data[position + 5 : position + 9])
            return _check_size(width, height)
        position += 2 + length
    raise InputError("a damaged image: download it again")


def _check_size(width: int, height: int) -> None:
    if not 0 < max(width, height) <= MAX_SIDE:
        raise InputError(f"larger than {MAX_SIDE} x {MAX_SIDE} pixels: shrink it first")
    if width != height:
        raise InputError("not square, and stretching would distort cells: crop or pad it")


def _decode(data: bytes, flags: int) -> Image:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        raise InputError("a damaged image, or one with an unusual compression: download it again, or save it as PNG")
    return image.astype(np.uint8, copy=False)


def _decode_deep(data: bytes) -> DeepImage:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), _DEEP)
    except cv2.error:
        image = None
    if image is None or image.dtype != np.uint16:
        raise InputError("a damaged image, or one with an unusual compression: download it again, or save it as PNG")
    return image.astype(np.uint16, copy=False)


def _stain(rgb: Image, channel: str) -> Image:
    red, green, blue = cv2.split(rgb)
    if channel == "yellow":
        return cv2.addWeighted(red, 0.5, green, 0.5, 0).astype(np.uint8, copy=False)
    return {"red": red, "green": green, "blue": blue}[channel].astype(np.uint8, copy=False)
