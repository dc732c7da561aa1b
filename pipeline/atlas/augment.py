"""Random changes to training images that leave the label as it is. The only module that knows albumentations."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline import params
from pipeline.atlas.images import look_up

# Albumentations asks a package index for updates at import; a pipeline must not look up the network.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
import albumentations as A

Image = npt.NDArray[np.uint8]

BORDER_REFLECT_101 = 4  # OpenCV's number for it: cells go on at the edge, as they do beyond the real one
ROTATION = 45  # degrees to either side; with the eight symmetries, every direction


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
        return look_up(img, table)


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
            A.D4(p=1),
            A.Affine(
                scale=(1 / augment.zoom, augment.zoom),
                translate_percent=(-augment.shift, augment.shift),
                shear=(-augment.shear, augment.shear),
                rotate=(-ROTATION, ROTATION),
                border_mode=BORDER_REFLECT_101,
                p=1,
            ),
            Stain(augment.gain, augment.gamma),
            A.GaussNoise(std_range=(0, augment.noise), p=1 if augment.noise else 0),
        ]
    )

    def change(image: Image, seed: int) -> Image:
        transform.set_random_seed(seed)
        changed: Image = transform(image=image)["image"]
        return changed

    return change
