"""Drawing primitives for float images. The only module of the simulation that uses OpenCV."""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.floating[Any]]
"""A grayscale image, (S, S) float32; 0 is dark."""
Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Points = npt.NDArray[np.float64]
"""Positions (N, 2) in pixels, x first."""

SUBPIXEL_BITS = 4
"""Fractional bits of OpenCV's coordinates."""
STRIDE = 2.0
"""Distance of the points of a line in pixels; after the blur, there are no visible gaps."""


def single_threaded() -> None:
    """Limit OpenCV to one thread, because the simulation's processes already use all cores."""
    cv2.setNumThreads(1)


def trace(paths: Points) -> tuple[npt.NDArray[np.intp], Points, Floats]:
    """Sample points along paths (k, T, 2) at distances of at most ``STRIDE``.

    Returns:
        For N points: the index of their path, (N,), their positions, (N, 2), and the lengths they represent, (N,).
    """
    start, way = paths[:, :-1].reshape(-1, 2), np.diff(paths, axis=1).reshape(-1, 2)
    length = np.sqrt((way * way).sum(axis=1))
    count = np.ceil(length / STRIDE).astype(np.intp)
    segment = np.repeat(np.arange(len(count)), count)
    along = np.arange(len(segment)) - np.repeat(np.cumsum(count) - count, count)
    share = 1 / np.maximum(count, 1)
    points = start[segment] + along[:, None] * (way * share[:, None])[segment]
    return segment // max(paths.shape[1] - 1, 1), points, (length * share)[segment]


def pixel_of(points: Points, size: int) -> npt.NDArray[np.intp]:
    """Flat index of each point's pixel in a (size, size) image; size² for points outside."""
    column, row = np.rint(points).astype(np.intp).T
    inside = (column >= 0) & (column < size) & (row >= 0) & (row < size)
    return np.where(inside, row * size + column, size * size)


def splat(size: int, points: Points, weights: Floats) -> Image:
    """Sum the weights (N,) of the points (N, 2) on each pixel of a (size, size) image."""
    total = np.bincount(pixel_of(points, size), weights, minlength=size * size + 1)[:-1]
    return total.reshape(size, size).astype(np.float32)


def blur(image: Image, sigma: float) -> Image:
    """Blur with a Gaussian of ``sigma`` pixels."""
    return cv2.GaussianBlur(image, (0, 0), max(sigma, 0.3)).astype(np.float32, copy=False)


def noise(rng: np.random.Generator, size: int, feature: float) -> Image:
    """Smooth random field, (size, size), with mean 0, standard deviation about 1 and bumps ``feature`` pixels wide."""
    coarse = max(int(size / max(feature, 1.0)), 2)
    grid = rng.standard_normal((coarse + 1, coarse + 1), dtype=np.float32)
    return enlarge(grid, size) * np.float32(1.3)


def texture(rng: np.random.Generator, size: int, feature: float, depth: float) -> Image:
    """Random factor around 1, (size, size), that varies by about ``depth`` in bumps ``feature`` pixels wide."""
    return np.asarray(np.clip(1 + depth * noise(rng, size, feature), 0.15, 2), dtype=np.float32)


def outlined(mask: Image, width: float) -> Image:
    """Draw the edge of a mask (0 or 1) as a line about ``width`` pixels wide, 0..1."""
    soft = blur(mask, width)
    return 4 * soft * (1 - soft)


def saturate(lines: Image, gain: float) -> Image:
    """Saturate brightness at 1, so that crossings of many threads are not much brighter than a single thread."""
    return np.asarray(np.tanh(gain * lines), dtype=np.float32)


def enlarge(grid: Image, size: int) -> Image:
    """Enlarge a coarse grid to (size, size) by cubic interpolation."""
    return cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC).astype(np.float32, copy=False)


def reduced(image: Image, side: int) -> Image:
    """Reduce an image to (side, side) by averaging areas."""
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32, copy=False)


def polar(dx: Image, dy: Image) -> tuple[Image, Image]:
    """Convert offsets to (radius, angle in 0..2π)."""
    radius, angle = cv2.cartToPolar(dx, dy)
    return radius.astype(np.float32, copy=False), angle.astype(np.float32, copy=False)


def look_up(index: Pixels, values: Image) -> Image:
    """Replace each value of ``index`` by the entry of ``values`` (up to 256) at this position."""
    table = np.zeros(256, dtype=np.float32)
    table[: len(values)] = values
    return cv2.LUT(index, table).astype(np.float32, copy=False)


def discs(size: int, points: Points, radii: Floats, *, thickness: float | None = None) -> Image:
    """Draw discs of brightness 1, or rings if ``thickness`` is given; all lengths are in pixels."""
    canvas = np.zeros((size, size), dtype=np.uint8)
    width = cv2.FILLED if thickness is None else max(round(thickness), 1)
    centres = np.rint(points * 2**SUBPIXEL_BITS).astype(int).tolist()
    reach = np.rint(radii * 2**SUBPIXEL_BITS).astype(int).tolist()
    for centre, radius in zip(centres, reach, strict=True):
        cv2.circle(canvas, centre, radius, 255, width, cv2.LINE_AA, SUBPIXEL_BITS)
    # OpenCV draws circles of one or two pixels as crosses; the blur makes them round.
    return blur(canvas.astype(np.float32) / np.float32(255), 0.6)


def spread(labels: Pixels, reach: float) -> tuple[Pixels, Pixels]:
    """Minimum and maximum within ``reach`` pixels of each pixel."""
    side = 2 * max(round(reach), 1) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    return cv2.erode(labels, kernel).astype(np.uint8), cv2.dilate(labels, kernel).astype(np.uint8)


def covered(mask: npt.NDArray[np.bool_], positions: int) -> npt.NDArray[np.bool_]:
    """Whether any pixel of a mask (S, S) is set in each of (positions, positions) parts of equal size."""
    share = cv2.resize(mask.astype(np.float32), (positions, positions), interpolation=cv2.INTER_AREA)
    return np.asarray(share > 0)


def encode_png(pixels: Pixels) -> bytes:
    """Encode a grayscale image, (S, S) uint8, as PNG.

    Without filters and with Huffman codes only: because the images are mostly noise, this takes half of the default's
    time and gives smaller files.
    """
    options = [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE]
    options += [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY]
    return cv2.imencode(".png", pixels, options)[1].tobytes()
