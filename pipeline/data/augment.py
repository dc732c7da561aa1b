"""Augmentation of training images: random transforms that keep the labels. The only module that uses albumentations."""

import os
from itertools import combinations
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.core import params
from pipeline.core.labels import CHANNELS
from pipeline.sources import images

# Albumentations checks a package index for updates at import; a pipeline must not access the network.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
import albumentations as A

Image = npt.NDArray[np.uint8]
Pair = npt.NDArray[np.float64]
"""A value for x and one for y, (2,)."""

NOISE_SPREAD = 32
"""Standard deviation of the stored noise in grey levels: its steps are fine, and 4 standard deviations fit in uint8."""
NOISE_MARGIN = 256
"""Pixels by which the stored noise is larger than an image, so that there are 65,536 different crops."""

SUBSETS = [subset for size in (1, 2, 3) for subset in combinations(range(1, len(CHANNELS)), size)]
"""The non-empty sets of reference stains, as tuples of channel indices; channel 0 is the protein."""

SHARES = np.linspace(0, 1, 256)[:, None]
"""The pixel values 0 to 255 as fractions of 255, (256, 1)."""


def affine(scale: Pair, angle: float, shear: Pair, shift: Pair, centre: Pair) -> npt.NDArray[np.float64]:
    """Matrix (2, 3) for `images.warp` that scales, then rotates, then shears about a centre, then translates.

    Args:
        scale: factors along x and y; a negative factor mirrors.
        angle: rotation in radians, counterclockwise.
        shear: shear angles along x and y, in radians.
        shift: translation in pixels, to the right and down.
        centre: x and y in pixels.
    """
    cosine, sine = np.cos(angle), np.sin(angle)
    along, up = np.tan(shear)
    linear = np.array([[1, along], [up, 1]]) @ np.array([[cosine, sine], [-sine, cosine]]) * scale
    return np.column_stack([linear, centre + shift - linear @ centre])


class Move(A.ImageOnlyTransform):  # type: ignore[misc]  # albumentations ships no types
    """Random affine transform for a share ``warp`` of the images, quarter turns for the others; half are mirrored.

    Affine transforms interpolate, which makes images smoother than those at prediction time. Quarter turns keep every
    pixel unchanged and take a fraction of the time. The affine transform is a single warp with mirrored edges;
    albumentations' `Affine` draws the same numbers and takes several times as long.
    """

    def __init__(self, warp: float, zoom: float, shift: float, shear: float) -> None:
        super().__init__(p=1.0)
        self.warp = warp
        self.zoom = zoom
        self.shift = shift
        self.shear = shear

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Draw a quarter turn, or the scales, shears, shifts and angle of an affine matrix (2, 3)."""
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
    """Vary the contrast of each channel: ``255 * (value / 255) ** gamma``.

    ``gamma`` is drawn log-uniformly from 1/limit to limit, independently for each channel, because exposure varies
    between plates and stains. Brightness is varied after normalisation, which would cancel it
    (``models.network.Normalise``).
    """

    def __init__(self, gamma: float) -> None:
        super().__init__(p=1.0)
        self.gamma = gamma

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Draw a look-up table (256, C) from old to new values."""
        gamma = self.gamma ** self.random_generator.uniform(-1, 1, params["shape"][2])
        return {"table": (255 * SHARES**gamma + 0.5).astype(np.uint8)}

    def apply(self, img: Image, table: npt.NDArray[np.uint8], **_: object) -> Image:
        """Apply the look-up table: (H, W, C) to the same shape."""
        return images.look_up(img, table)


class Noise(A.ImageOnlyTransform):  # type: ignore[misc]
    """Add Gaussian noise with a standard deviation drawn from 0 to ``deviation`` (as a fraction of 255).

    Drawing a million normal numbers takes longer than all other augmentation. They are therefore drawn only once, and
    a random crop of them is added to each image.
    """

    def __init__(self, deviation: float, size: int) -> None:
        super().__init__(p=1.0)
        self.deviation = deviation
        side = size + NOISE_MARGIN
        drawn = np.random.default_rng(0).normal(128, NOISE_SPREAD, (side, side, len(CHANNELS)))
        self.stored = drawn.round().clip(0, 255).astype(np.uint8)

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Draw the strength and the position of the crop; pass ``into`` on to ``apply``."""
        down, right, strength = self.random_generator.random(3)
        share = self.deviation * strength * 255 / NOISE_SPREAD
        top, left = int(NOISE_MARGIN * down), int(NOISE_MARGIN * right)
        return {"top": top, "left": left, "share": float(share), "into": data.get("into")}

    def apply(self, img: Image, top: int, left: int, share: float, into: Image | None, **_: object) -> Image:
        """Add the noise: (H, W, C) to the same shape, written to ``into`` if it is given."""
        height, width = img.shape[:2]
        return images.add(img, self.stored[top : top + height, left : left + width], share, into)


class DropStains(A.ImageOnlyTransform):  # type: ignore[misc]
    """Blank reference stains in a share ``p`` of the images, so that a model can predict samples that lack them.

    The stains are one of the 7 non-empty subsets of nucleus, microtubules and endoplasmic reticulum, all equally
    likely; the protein is kept. A blank channel is 0, and per-image normalisation (``models.network.Normalise``) maps
    it to exactly 0 everywhere: this is how the network sees that a stain is absent, in training and in prediction.
    """

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Draw the indices of the channels to blank."""
        return {"absent": SUBSETS[self.random_generator.integers(len(SUBSETS))]}

    def apply(self, img: Image, absent: tuple[int, ...], **_: object) -> Image:
        """Blank the channels of (H, W, 4), in place."""
        img[..., absent] = 0
        return img


class Appearance:
    """Random changes of contrast, noise and stains, which leave every structure in its place: (side, side, 4) uint8.

    The result depends on image and seed only. Transforms are seeded for each sample, because the library's own
    generator would repeat its numbers in every worker and every epoch.
    """

    def __init__(self, augment: params.Augment, side: int) -> None:
        self.side = side
        self._transforms: list[A.ImageOnlyTransform] = [Stain(augment.gamma)]
        if augment.noise:
            self._transforms.append(Noise(augment.noise, self.side))
        if augment.drop_stains:
            # Last, because noise would add signal to a blank channel. In place, because Stain has made a copy.
            self._transforms.append(DropStains(p=augment.drop_stains))

    def __call__(self, image: Image, seed: int, into: Image | None = None) -> Image:
        """Augment an image; the result is written to ``into`` if it is given."""
        # All transforms share one generator: set_random_seed would give each the same numbers, so that the strengths
        # of noise and staining would be correlated. A.Compose is not used, because its checks take a tenth of the time
        # for small images.
        random, python_random = np.random.default_rng(seed), Random(seed)
        for transform in self._transforms:
            transform.set_random_state(random, python_random)
            image = transform(image=image, into=into)["image"]
        if into is None or image is into:
            return image
        into[:] = image
        return into


class Augmentation(Appearance):
    """The augmentation of a model: (size, size, 4) uint8 to (side, side, 4), where ``side`` is ``crop * size``.

    Crops are not rescaled, so a network that is trained on crops can predict whole images.
    """

    def __init__(self, augment: params.Augment, size: int) -> None:
        super().__init__(augment, round(augment.crop * size))
        self._transforms.insert(0, Move(augment.warp, augment.zoom, augment.shift, augment.shear))
        if self.side < size:
            self._transforms.insert(0, A.RandomCrop(self.side, self.side, p=1))
