"""Random changes to training images that leave the label as it is. The only module that knows albumentations."""

import os
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.core import params
from pipeline.core.labels import CHANNELS
from pipeline.sources import images

# Albumentations asks a package index for updates at import; a pipeline must not look up the network.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
import albumentations as A

Image = npt.NDArray[np.uint8]
Pair = npt.NDArray[np.float64]
"""Two numbers: of x and of y."""

NOISE_SPREAD = 32
"""Standard deviation of the stored noise in grey levels: fine steps, and four of them fit in a byte."""
NOISE_MARGIN = 256
"""Pixels by which the stored noise is larger than an image, so that there are 65,536 places to read it from."""

SHARES = np.linspace(0, 1, 256)[:, None]
"""The values 0 to 255 as shares of white, (256, 1)."""


def affine(scale: Pair, angle: float, shear: Pair, shift: Pair, centre: Pair) -> npt.NDArray[np.float64]:
    """Scale, then turn, then shear about a centre, then shift: the matrix (2, 3) that `images.warp` takes.

    Args:
        scale: across and down; a negative one mirrors.
        angle: in radians, counterclockwise.
        shear: of the horizontal and the vertical lines, in radians.
        shift: in pixels, to the right and down.
        centre: x and y, in pixels.
    """
    cosine, sine = np.cos(angle), np.sin(angle)
    along, up = np.tan(shear)
    linear = np.array([[1, along], [up, 1]]) @ np.array([[cosine, sine], [-sine, cosine]]) * scale
    return np.column_stack([linear, centre + shift - linear @ centre])


class Move(A.ImageOnlyTransform):  # type: ignore[misc]  # albumentations ships no types
    """Mirror half the images, and turn all: a share by any angle, stretched, sheared and shifted, others by quarters.

    What is warped is interpolated, and so smoother than the images that the network is to judge; a quarter turn keeps
    each pixel as it is, at a fraction of the cost. A warp is one for all that it does, with mirrored edges: the
    library's own `Affine` draws the same numbers and takes several times as long.
    """

    def __init__(self, warp: float, zoom: float, shift: float, shear: float) -> None:
        super().__init__(p=1.0)
        self.warp = warp
        self.zoom = zoom
        self.shift = shift
        self.shear = shear

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - theirs
        """Draw a quarter turn, or the matrix (2, 3) of a warp: both ways' scales, shears and shifts, and the angle."""
        numbers = self.random_generator.uniform(-1, 1, 9)
        mirror = bool(numbers[2] < 0)
        if (numbers[8] + 1) / 2 >= self.warp:
            return {"matrix": None, "quarters": int(2 * numbers[3] + 2), "mirror": mirror}
        scale = self.zoom ** numbers[:2] * (-1 if mirror else 1, 1)
        angle, shear = np.pi * numbers[3], np.radians(self.shear * numbers[4:6])
        size = np.array([params["shape"][1], params["shape"][0]])
        matrix = affine(scale, angle, shear, self.shift * numbers[6:8] * size, (size - 1) / 2)
        return {"matrix": matrix, "quarters": 0, "mirror": False}

    def apply(
        self, img: Image, matrix: npt.NDArray[np.float64] | None, quarters: int, mirror: bool, **_: object
    ) -> Image:
        """(S, S, C) to the same shape."""
        return images.turn(img, quarters, mirror=mirror) if matrix is None else images.warp(img, matrix)


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
        gain, gamma = np.array([[self.gain], [self.gamma]]) ** self.random_generator.uniform(-1, 1, (2, channels))
        table = 255 * gain * SHARES**gamma
        return {"table": np.minimum(table + 0.5, 255).astype(np.uint8)}

    def apply(self, img: Image, table: npt.NDArray[np.uint8], **_: object) -> Image:
        """Look each value up: (H, W, C) to the same shape."""
        return images.look_up(img, table)


class Noise(A.ImageOnlyTransform):  # type: ignore[misc]
    """Add Gaussian noise of a standard deviation drawn from 0..``deviation`` (as a share of white).

    A million normal numbers cost more than everything else together, so they are drawn once and read from a
    random place for each image.
    """

    def __init__(self, deviation: float, size: int) -> None:
        super().__init__(p=1.0)
        self.deviation = deviation
        side = size + NOISE_MARGIN
        drawn = np.random.default_rng(0).normal(128, NOISE_SPREAD, (side, side, len(CHANNELS)))
        self.stored = drawn.round().clip(0, 255).astype(np.uint8)

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - theirs
        """Draw the strength, and where to read; and pass on where to write."""
        down, right, strength = self.random_generator.random(3)
        share = self.deviation * strength * 255 / NOISE_SPREAD
        top, left = int(NOISE_MARGIN * down), int(NOISE_MARGIN * right)
        return {"top": top, "left": left, "share": float(share), "into": data.get("into")}

    def apply(self, img: Image, top: int, left: int, share: float, into: Image | None, **_: object) -> Image:
        """(H, W, C) to the same shape; ``into``, where it is given."""
        height, width = img.shape[:2]
        return images.add(img, self.stored[top : top + height, left : left + width], share, into)


class Augmentation:
    """The random change of a model: (size, size, 4) uint8 to (side, side, 4), ``side`` being ``crop`` times the size.

    A cropped window has the scale of the whole image, so that a network trained on windows predicts whole images.

    The result is a function of image and seed alone: the library's own generator would repeat itself in every worker
    and every epoch, so it is seeded anew for each sample.
    """

    def __init__(self, augment: params.Augment, size: int) -> None:
        self.side = round(augment.crop * size)
        self._transforms: list[A.ImageOnlyTransform] = [
            Move(augment.warp, augment.zoom, augment.shift, augment.shear),
            Stain(augment.gain, augment.gamma),
        ]
        if self.side < size:
            self._transforms.insert(0, A.RandomCrop(self.side, self.side, p=1))
        if augment.noise:
            self._transforms.append(Noise(augment.noise, self.side))

    def __call__(self, image: Image, seed: int, into: Image | None = None) -> Image:
        """Change an image; the result is ``into``, where that is given."""
        # One generator for all: set_random_seed would start every transform at the same number, so that the
        # strength of the noise would follow that of the stain. And no A.Compose, whose checks take a tenth of the time
        # at small sizes.
        random, python_random = np.random.default_rng(seed), Random(seed)
        for transform in self._transforms:
            transform.set_random_state(random, python_random)
            image = transform(image=image, into=into)["image"]
        if into is None or image is into:
            return image
        into[:] = image
        return into
