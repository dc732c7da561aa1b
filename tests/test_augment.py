"""Augmentation: a function of image and seed, and every part of it does something and can be switched off."""

import numpy as np
import numpy.typing as npt
import pytest

from pipeline import params
from pipeline.atlas.augment import augmentation
from tests.models import TINY

OFF = params.Augment(crop=1, zoom=1, shift=0, shear=0, gain=1, gamma=1, noise=0)


def image(size: int = 48) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (size, size, 4), dtype=np.uint8)


def test_same_seed_same_pixels_whatever_came_before() -> None:
    change = augmentation(TINY.augment, 48)
    first = change(image(), 7)
    change(image(), 8)
    np.testing.assert_array_equal(change(image(), 7), first)
    assert first.shape == (48, 48, 4)
    assert first.dtype == np.uint8
    assert not np.array_equal(change(image(), 9), first)


@pytest.mark.parametrize("part", [{"gain": 1.5}, {"gamma": 1.5}, {"noise": 0.1}, {"zoom": 2.0}, {"shift": 0.3}])
def test_each_part_changes_the_image(part: dict[str, float]) -> None:
    plain, changed = augmentation(OFF, 48)(image(), 3), augmentation(OFF.model_copy(update=part), 48)(image(), 3)
    assert not np.array_equal(plain, changed)


def test_stain_varies_channels_independently_and_keeps_black_black() -> None:
    change = augmentation(OFF.model_copy(update={"gain": 1.5}), 32)
    flat = np.full((32, 32, 4), 100, np.uint8)
    for seed in range(20):
        values = change(flat, seed)[16, 16].astype(float)
        assert len(set(values)) > 1
        assert (values >= 100 / 1.5 - 1).all()
        assert (values <= 150 + 1).all()
    assert change(np.zeros_like(flat), 0).max() == 0


def test_a_crop_is_a_window_at_the_same_scale() -> None:
    change = augmentation(OFF.model_copy(update={"crop": 0.5}), 48)
    rows, columns = np.mgrid[:48, :48].astype(np.uint8)
    windows = [change(np.dstack([rows, columns, rows, columns]), seed) for seed in range(10)]
    assert {window.shape for window in windows} == {(24, 24, 4)}
    assert len({window.tobytes() for window in windows}) > 1
