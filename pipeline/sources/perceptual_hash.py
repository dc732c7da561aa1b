"""Perceptual hash of an image: the hashes of two pictures of one field of view differ in few bits.

Based on pHash (Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010): the signs of the
image's lowest frequencies, which hardly change with exposure, noise, resizing or a small shift.
"""

import numpy as np
import numpy.typing as npt

from pipeline.sources.images import fit, shrink_quickly

BITS = 256
SIDE = 32
"""Side of the shrunk image in pixels: large enough for the frequencies used, small enough to average out noise."""
FREQUENCIES = 12
FAINT = 1.0
"""Added to a channel's standard deviation before dividing by it, so that faint channels do not amplify noise."""
EVEN = 0.1
"""An image is uniform if the standard deviation of all its channels is below this (in roots of grey levels)."""

MIXTURES = np.array([[1, 1, 1, 1], [1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]])
"""Sums and differences of the channels are hashed instead of the channels, which show the same cells and would give
redundant bits. If one channel is blank, all mixtures are still informative."""

_WAVES = np.cos(np.pi * np.arange(FREQUENCIES)[:, None] * (np.arange(SIDE) + 0.5) / SIDE)  # the DCT, 12 x 32
_LOWEST = sorted(
    ((down, right) for down in range(FREQUENCIES) for right in range(FREQUENCIES) if down + right),
    key=lambda pair: (sum(pair), max(pair), pair),
)[: BITS // len(MIXTURES)]
_DOWN, _RIGHT = np.array(_LOWEST).T


def thumbnail(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Shrink an image or one of its channels to the input of the hash: (S, S[, C]) to (32, 32[, C])."""
    return shrink_quickly(pixels, SIDE) if len(pixels) >= SIDE else fit(pixels, SIDE)


def perceptual_hash(pixels: npt.NDArray[np.uint8]) -> str:
    """Hash an image, (S, S, 4) uint8, or its thumbnail.

    Returns:
        64 hexadecimal digits; two hashes are compared by the number of different bits. Empty for a uniform image,
        which would be similar to all others.
    """
    small = np.sqrt(thumbnail(pixels).astype(np.float64))  # the root makes photon noise independent of brightness
    deviation = small.std(axis=(0, 1))
    if deviation.max() < EVEN:
        return ""
    channels = (small / (deviation + FAINT)).transpose(2, 0, 1)
    frequencies = (_WAVES @ channels @ _WAVES.T)[:, _DOWN, _RIGHT]  # 4, 64
    return np.packbits(MIXTURES @ frequencies > 0).tobytes().hex()
