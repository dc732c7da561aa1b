"""A fingerprint of what an image shows, nearly the same for two pictures of one field of view.

The idea is pHash's (Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010): the signs
of the lowest frequencies of the image, which survive a change of exposure, noise, resizing and a small shift.
"""

import numpy as np
import numpy.typing as npt

from pipeline.sources.images import fit, shrink_quickly

BITS = 256
SIDE = 32
"""Pixels to which an image is shrunk: fine enough for the frequencies read, coarse enough to average noise out."""
FREQUENCIES = 12
FAINT = 1.0
"""A channel whose spread (in roots of grey levels) is not well above this fades out instead of adding noise."""
EVEN = 0.1
"""An image whose channels all have less spread than this shows nothing that could be recognised."""

MIXTURES = np.array([[1, 1, 1, 1], [1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]])
"""Sums and differences of the channels: the stains show the same cells, so that their own bits would repeat each
other, and a blank channel leaves all mixtures standing."""

_WAVES = np.cos(np.pi * np.arange(FREQUENCIES)[:, None] * (np.arange(SIDE) + 0.5) / SIDE)  # the DCT, 12 x 32
_LOWEST = sorted(
    ((down, right) for down in range(FREQUENCIES) for right in range(FREQUENCIES) if down + right),
    key=lambda pair: (sum(pair), max(pair), pair),
)[: BITS // len(MIXTURES)]
_DOWN, _RIGHT = np.array(_LOWEST).T


def thumbnail(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """All that the fingerprint sees of an image or of one of its channels: (S, S[, C]) to (32, 32[, C])."""
    return shrink_quickly(pixels, SIDE) if len(pixels) >= SIDE else fit(pixels, SIDE)


def perceptual_hash(pixels: npt.NDArray[np.uint8]) -> str:
    """Fingerprint an image, (S, S, 4) uint8, or its thumbnail.

    Returns:
        64 hexadecimal digits, to be compared by the number of different bits; empty for an even image, which
        would resemble every other one.
    """
    small = np.sqrt(thumbnail(pixels).astype(np.float64))  # the root evens out photon noise
    spread = small.std(axis=(0, 1))
    if spread.max() < EVEN:
        return ""
    channels = (small / (spread + FAINT)).transpose(2, 0, 1)
    frequencies = (_WAVES @ channels @ _WAVES.T)[:, _DOWN, _RIGHT]  # 4, 64
    return np.packbits(MIXTURES @ frequencies > 0).tobytes().hex()
