"""The rendered images: every label shows where its mask says, and the camera adds noise, blur and uneven light."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from pipeline.core.labels import LABELS
from pipeline.core.params import Simulation
from pipeline.simulation.competition import Entry, plan
from pipeline.simulation.render import PHOTONS, masks, photograph, render, shifted

SETTINGS = Simulation(seed=11, train=1, test=1, size=256, fields_per_antibody=3, near_duplicates=0, test_exposure=0.75)
GREEN, BLUE, RED, YELLOW = range(4)
SEEDS = st.integers(0, 2**32)


def entry(*labels: int, antibody: int = 1, field: int = 0, take: int = 0) -> Entry:
    return Entry("id", "train", antibody, labels, field, take)


@pytest.mark.parametrize("label", range(len(LABELS)), ids=LABELS)
def test_a_label_is_brighter_inside_its_mask_than_outside(label: int) -> None:
    pictured = entry(label, antibody=label + 1)
    green = render(pictured, SETTINGS)[..., GREEN].astype(float)
    shown = masks(pictured, SETTINGS)
    assert shown.shape == (len(LABELS), 256, 256)
    assert not np.delete(shown, label, axis=0).any()
    assert 0 < shown[label].mean() < 0.6
    assert green[shown[label]].mean() > 2 * green[~shown[label]].mean()


def test_several_labels_show_at_once_each_in_its_own_place() -> None:
    both = masks(entry(2, 23), SETTINGS)
    assert both[2].any()
    assert both[23].any()
    assert not (both[2] & both[23]).any()


def test_a_picture_is_the_same_each_time_and_differs_between_fields() -> None:
    first = render(entry(25), SETTINGS)
    np.testing.assert_array_equal(first, render(entry(25), SETTINGS))
    assert (first != render(entry(25, field=1), SETTINGS)).any()


def test_a_near_copy_shows_the_same_field_with_other_noise() -> None:
    original, copy, another = (
        ndimage.gaussian_filter(render(entry(0, field=f, take=t), SETTINGS)[..., BLUE].astype(float), 6)
        for f, t in ((0, 0), (0, 1), (1, 0))
    )
    assert (original != copy).any()
    assert np.corrcoef(original.ravel(), copy.ravel())[0, 1] > 0.9
    assert np.corrcoef(original.ravel(), another.ravel())[0, 1] < 0.5


def test_the_mask_of_a_near_copy_moves_with_it() -> None:
    pictured = entry(0, take=1)
    blue = render(pictured, SETTINGS)[..., BLUE].astype(float)
    moved, unmoved = masks(pictured, SETTINGS)[0], masks(entry(0), SETTINGS)[0]
    assert (moved != unmoved).any()
    assert np.corrcoef(blue.ravel(), moved.ravel())[0, 1] > np.corrcoef(blue.ravel(), unmoved.ravel())[0, 1]


def test_fields_of_an_antibody_look_more_alike_than_fields_of_two() -> None:
    """Between antibodies the brightness varies at least twice as much as within one: what leaks in random folds."""
    level = np.array([[render(entry(25, antibody=a, field=f), SETTINGS)[..., GREEN].mean() for f in range(3)]
                      for a in range(1, 13)])  # fmt: skip
    assert level.mean(axis=1).std() > 2 * level.std(axis=1).mean()


def test_channel_means_and_the_shift_of_the_test_set_are_near_the_real_ones() -> None:
    """Means of the competition's RGBY: train .081 .053 .055 .083; the test images are darker, by test_exposure."""
    settings = SETTINGS.model_copy(update={"train": 70, "test": 30, "size": 128, "seed": 1})
    entries = plan(settings)
    train = np.mean([render(e, settings).mean(axis=(0, 1)) for e in entries if e.split == "train"], axis=0) / 255
    np.testing.assert_allclose(train, [0.053, 0.055, 0.081, 0.083], rtol=0.25)
    tests = [e for e in entries if e.split == "test"]
    even = settings.model_copy(update={"test_exposure": 1.0})
    dark, bright = (np.mean([render(e, s) for e in tests]) for s in (settings, even))
    assert dark / bright == pytest.approx(0.75, abs=0.03)


@given(seed=SEEDS, down=st.integers(-3, 3), right=st.integers(-3, 3))
def test_a_shift_moves_every_pixel_that_stays_in_the_frame(seed: int, down: int, right: int) -> None:
    image = np.random.default_rng(seed).random((9, 9)).astype(np.float32)
    moved = shifted(image, (down, right))
    for y in range(9):
        for x in range(9):
            if 0 <= y - down < 9 and 0 <= x - right < 9:
                assert moved[y, x] == image[y - down, x - right]


def test_noise_is_poissons() -> None:
    """On an even field, the variance over the mean, both in photons, is 1."""
    light = np.full((256, 256), 0.5, dtype=np.float32)
    photons = photograph([light], np.random.default_rng(0), defocus=0.3, shift=(0, 0)).astype(float) * PHOTONS / 255
    even = photons - ndimage.gaussian_filter(photons, (12, 12, 0))
    assert even.var() / photons.mean() == pytest.approx(1, rel=0.05)


def test_darkness_stays_dark_and_too_much_light_is_white() -> None:
    rng = np.random.default_rng(0)
    assert photograph([np.zeros((64, 64), np.float32)], rng, defocus=1, shift=(0, 0)).max() == 0
    assert photograph([np.full((64, 64), 9, np.float32)], rng, defocus=1, shift=(0, 0)).min() == 255


def test_the_lamp_lights_the_field_unevenly() -> None:
    light = np.full((128, 128), 0.5, dtype=np.float32)
    picture = photograph([light], np.random.default_rng(4), defocus=1, shift=(0, 0))[..., 0]
    blocks = picture.reshape(8, 16, 8, 16).mean(axis=(1, 3))
    assert 1.05 < blocks.max() / blocks.min() < 3
