"""Random changes to training images that leave the label as it is. The only module that knows albumentations."""

import os
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline import params
from pipeline.atlas import images
from pipeline.labels import CHANNELS

# Albumentations asks a package index for updates at import; a pipeline must not look up the network.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
import albumentations as A

Image = npt.NDArray[np.uint8]

NOISE_SPREAD = 32
"""Standard deviation of the stored noise in grey levels: fine steps, and four of them fit in a byte."""
NOISE_MARGIN = 256
"""Pixels by which the stored noise is larger than an image, so that there are 65,536 places to read it from."""


class Move(A.Affine):  # type: ignore[misc]  # albumentations ships no types
    """The library's affine change with mirrored edges, several times faster than its own."""

    def apply(self, img: Image, matrix: npt.NDArray[np.float64], **_: object) -> Image:
        """(H, W, C) to the same shape; ``matrix`` is (3, 3)."""
        return images.warp(img, matrix[:2])


class Stain(A.ImageOnlyTransform):  # type: ignore[misc]  # albumentations ships no types
    """Vary the staining: per channel ``white * gain * (value / white) ** gamma``.

    ``gain`` and ``gamma`` are drawn log-uniformly from 1/limit .. limit for each channel: exposures and
    antibody strengths differ between plates, and independently between stains.
    """

    def __init__(self, gain: float, gamma: float) -> None:
        super().__init__(p=1.0)
        self.gain = gain
        self.gamma = gamma

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - theirs
        """Draw a table (256, C) that maps old values to new ones."""
        channels = params["shape"][2]
        low_high = np.log([[self.gain], [self.gamma]])  # 2, 1
        gain, gamma = np.exp(self.random_generator.uniform(-low_high, low_high, (2, channels)))
        table = 255 * gain * np.linspace(0, 1, 256)[:, None] ** gamma
        return {"table": np.clip(np.rint(table), 0, 255).astype(np.uint8)}

    def apply(self, img: Image, table: npt.NDArray[np.uint8], **_: object) -> Image:
        """Look each value up: (H, W, C) to the same shape."""
        return images.look_up(img, table)


class Noise(A.ImageOnlyTransform):  # type: ignore[misc]
    """Add Gaussian noise of a standard deviation drawn from 0..``deviation`` (as a share of white).

    A million normal numbers cost more than everything else together, so they are drawn once and read from a
    random place for each image.
    """

    def __init__(self, deviation: float, size: int) -> None:
        super().__init__(p=1.0 if deviation else 0.0)
        self.deviation = deviation
        side = size + NOISE_MARGIN
        drawn = np.random.default_rng(0).normal(128, NOISE_SPREAD, (side, side, len(CHANNELS)))
        self.stored = drawn.round().clip(0, 255).astype(np.uint8)

    def get_params(self) -> dict[str, Any]:
        """Draw the strength, and where to read."""
        top, left = self.random_generator.integers(0, NOISE_MARGIN, 2)
        share = self.random_generator.uniform(0, self.deviation) * 255 / NOISE_SPREAD
        return {"top": int(top), "left": int(left), "share": float(share)}

    def apply(self, img: Image, top: int, left: int, share: float, **_: object) -> Image:
        """(H, W, C) to the same shape."""
        height, width = img.shape[:2]
        return images.add(img, self.stored[top : top + height, left : left + width], share)


def augmentation(augment: params.Augment, size: int) -> Callable[[Image, int], Image]:
    """Build the random change: ``change(image, seed)`` maps (size, size, 4) uint8 to (crop * size, crop * size, 4).

    A cropped window has the scale of the whole image, so that a network trained on windows predicts whole images.

    The result is a function of image and seed alone: the library's own generator would repeat itself in
    every worker and every epoch, so it is seeded anew for each sample.
    """
    window = round(augment.crop * size)
    transform = A.Compose(
        [
            A.RandomCrop(window, window, p=1 if window < size else 0),
            A.HorizontalFlip(p=0.5),  # with every rotation, the eight symmetries and all between
            Move(
                scale=(1 / augment.zoom, augment.zoom),
                translate_percent=(-augment.shift, augment.shift),
                shear=(-augment.shear, augment.shear),
                rotate=(-180, 180),
                p=1,
            ),
            Stain(augment.gain, augment.gamma),
            Noise(augment.noise, window),
        ]
    )

    def change(image: Image, seed: int) -> Image:
        # One generator for all: set_random_seed would start every transform at the same number, so that the
        # strength of the noise would follow that of the stain.
        transform.set_random_state(np.random.default_rng(seed), Random(seed))
        changed: Image = transform(image=image)["image"]
        return changed

    return change
