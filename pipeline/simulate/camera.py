"""From the light of a field to the pixels of an image: illumination, lens, exposure and shot noise."""

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtri

from pipeline.simulate.raster import Image, Pixels, blur, enlarge

LENS_BLUR = 0.65
"""Deviation of the microscope's own blur, in pixels at 512."""
PHOTONS = 140.0
"""Photons that make a pixel white."""
NORMAL = ndtri((np.arange(65_536) + 0.5) / 65_536).astype(np.float32)
"""Quantiles of the normal distribution: drawing from these takes half the time of drawing normal numbers."""


def photograph(light: Sequence[Image], rng: np.random.Generator, *, defocus: float, shift: tuple[int, int]) -> Pixels:
    """Take the picture of a field.

    Args:
        light: brightness of C channels, each (S, S); 1 is white.
        rng: where illumination and noise come from.
        defocus: deviation of the blur in pixels.
        shift: pixels by which the stage moved, down and right.

    Returns:
        (S, S, C) uint8.
    """
    lamp = _illumination(rng, len(light[0]))
    return np.stack([_expose(blur(shifted(channel, shift), defocus) * lamp, rng) for channel in light], axis=-1)


def shifted(image: Image, shift: tuple[int, int]) -> Image:
    """Move (S, S) by whole pixels, down and right; what enters at the border mirrors what is there."""
    size = image.shape[0]
    border = max(abs(shift[0]), abs(shift[1]))
    if border == 0:
        return image
    padded = np.pad(image, border, mode="reflect")
    top, left = border - shift[0], border - shift[1]
    return padded[top : top + size, left : left + size]


def _illumination(rng: np.random.Generator, size: int) -> Image:
    """A lamp that is brightest somewhere near the middle and falls off smoothly."""
    x, y = rng.uniform(-0.4, 0.4, 2)
    at = np.linspace(-1, 1, 17)
    fall = rng.uniform(0.05, 0.25) * ((at[:, None] - y) ** 2 + (at - x) ** 2)
    return enlarge((1.08 - fall).astype(np.float32), size)


def _expose(light: Image, rng: np.random.Generator) -> Pixels:
    """Add shot noise and write gray values; counts of photons are Poisson by their normal approximation."""
    photons = np.maximum(light, 0) * np.float32(PHOTONS)
    photons += np.sqrt(photons) * NORMAL[rng.integers(0, len(NORMAL), light.shape, dtype=np.uint16)]
    pixels: Pixels = np.clip(np.rint(photons * np.float32(255 / PHOTONS)), 0, 255).astype(np.uint8)
    return pixels
