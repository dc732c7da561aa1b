"""Perceptual hashes: near for two pictures of one field, far for two fields, none for an even image."""

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from scipy.fft import dctn

from pipeline.sources import perceptual_hash as module
from pipeline.sources.images import shrink
from pipeline.sources.perceptual_hash import BITS, perceptual_hash

Image = npt.NDArray[np.uint8]
SIDE = 256


def field(seed: int) -> Image:
    """Bright blobs that the four stains share, each with its own strength, and some of their own."""
    random = np.random.default_rng(seed)
    light = np.zeros((SIDE, SIDE, 4), np.float32)
    for _ in range(25):
        y, x = (int(place) for place in random.integers(0, SIDE, 2))
        strength = tuple(float(s) for s in random.uniform(0, 160, 4))
        cv2.ellipse(light, (x, y), (22, 12), float(random.uniform(0, 180)), 0, 360, strength, -1)
    return cv2.GaussianBlur(light, (0, 0), 3).astype(np.uint8)


def distance(one: Image, other: Image) -> int:
    return (int(perceptual_hash(one), 16) ^ int(perceptual_hash(other), 16)).bit_count()


def noisy(image: Image) -> Image:
    noise = np.random.default_rng(0).normal(0, 8, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


NEAR: dict[str, Callable[[Image], Image]] = {
    "shifted": lambda image: np.roll(image, (3, -3), axis=(0, 1)),
    "cropped": lambda image: image[4:-4, 4:-4],
    "brighter": lambda image: np.clip(1.2 * image, 0, 255).astype(np.uint8),
    "of another contrast": lambda image: (255 * (image / 255) ** 1.2).astype(np.uint8),
    "noisy": noisy,
    "half the size": lambda image: shrink(image, SIDE // 2),
    "one channel blank": lambda image: image * np.array([0, 1, 1, 1], np.uint8),
}


@pytest.mark.parametrize("change", NEAR.values(), ids=NEAR.keys())
def test_a_changed_picture_stays_near(change: Callable[[Image], Image]) -> None:
    limit = 0.3 if change is NEAR["one channel blank"] else 0.17
    assert max(distance(image, change(image)) for image in map(field, range(5))) < limit * BITS


def test_other_fields_are_far_also_where_only_one_channel_shows_something() -> None:
    for blank in ([1, 1, 1, 1], [0, 1, 0, 0]):
        pictures = [field(seed) * np.array(blank, np.uint8) for seed in range(12)]
        assert min(distance(a, b) for i, a in enumerate(pictures) for b in pictures[:i]) > 0.25 * BITS


@pytest.mark.parametrize("level", [0, 3, 255])
def test_an_even_image_has_no_hash(level: int) -> None:
    even = np.full((SIDE, SIDE, 4), level, np.uint8)
    assert perceptual_hash(even) == ""
    specks = even ^ (np.random.default_rng(0).random(even.shape) < 0.05)  # noise of a grey level
    assert perceptual_hash(specks) == ""


def test_the_frequencies_are_those_of_scipys_cosine_transform() -> None:
    image = field(1)[::8, ::8]  # 32 pixels: nothing is shrunk
    waves = dctn(np.sqrt(image.astype(float)) / (np.sqrt(image.astype(float)).std(axis=(0, 1)) + 1), axes=(0, 1))
    lowest = np.array([waves[down, right] for down, right in module._LOWEST]).T  # 4, 64
    expected = np.packbits(module.MIXTURES @ lowest > 0).tobytes().hex()
    assert perceptual_hash(image) == expected
    assert len(expected) * 4 == BITS
