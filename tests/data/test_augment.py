"""Augmentation: a function of image and seed, and every part of it does something and can be switched off."""

from collections import Counter

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from albumentations.augmentations.geometric.functional import create_affine_transformation_matrix

from pipeline.core import params
from pipeline.data.augment import Appearance, Augmentation, Move, affine
from pipeline.inference.probabilities import VIEWS
from pipeline.models.network import Normalise
from pipeline.sources.images import turn, warp
from tests.fixtures.models import TINY

OFF = params.Augment(crop=1, warp=1, zoom=1, shift=0, shear=0, gain=1, gamma=1, noise=0, drop_stains=0)


def image(size: int = 48) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (size, size, 4), dtype=np.uint8)


def test_same_seed_same_pixels_whatever_came_before() -> None:
    change = Augmentation(TINY.augment, 48)
    first = change(image(), 7)
    change(image(), 8)
    np.testing.assert_array_equal(change(image(), 7), first)
    assert first.shape == (48, 48, 4)
    assert first.dtype == np.uint8
    assert not np.array_equal(change(image(), 9), first)


def test_the_last_change_is_written_where_it_is_told_to() -> None:
    change, slot = Augmentation(TINY.augment, 48), np.empty((48, 48, 4), np.uint8)
    assert change(image(), 7, slot) is slot
    np.testing.assert_array_equal(slot, change(image(), 7))


@pytest.mark.parametrize("part", [{"gamma": 1.5}, {"noise": 0.1}, {"zoom": 2.0}, {"shift": 0.3}])
def test_each_part_changes_the_image(part: dict[str, float]) -> None:
    plain, changed = Augmentation(OFF, 48)(image(), 3), Augmentation(OFF.model_copy(update=part), 48)(image(), 3)
    assert not np.array_equal(plain, changed)


def test_stain_varies_channels_independently_and_keeps_black_black() -> None:
    change = Augmentation(OFF.model_copy(update={"gamma": 1.5}), 32)
    flat = np.full((32, 32, 4), 100, np.uint8)
    for seed in range(20):
        values = change(flat, seed)[16, 16].astype(float)
        assert len(set(values)) > 1
        assert (values >= 255 * (100 / 255) ** 1.5 - 1).all()
        assert (values <= 255 * (100 / 255) ** (1 / 1.5) + 1).all()
    assert change(np.zeros_like(flat), 0).max() == 0
    assert change(np.full_like(flat, 255), 0).min() == 255


def test_appearance_leaves_every_structure_in_its_place() -> None:
    change = Appearance(OFF.model_copy(update={"zoom": 2.0, "shift": 0.3, "gamma": 1.5}), 48)
    for seed in range(5):
        found = change(image(), seed)
        assert not np.array_equal(found, image())
        for channel in range(4):
            by_value = found[..., channel].ravel()[np.argsort(image()[..., channel], axis=None)]
            assert (np.diff(by_value.astype(int)) >= 0).all()  # brighter pixels stay brighter


def test_a_crop_is_a_window_at_the_same_scale() -> None:
    change = Augmentation(OFF.model_copy(update={"crop": 0.5}), 48)
    rows, columns = np.mgrid[:48, :48].astype(np.uint8)
    windows = [change(np.dstack([rows, columns, rows, columns]), seed) for seed in range(10)]
    assert {window.shape for window in windows} == {(24, 24, 4)}
    assert len({window.tobytes() for window in windows}) > 1


@pytest.mark.parametrize("angle", [0, 30, 45, 100, 180])
@pytest.mark.parametrize("scale", [0.8, 1.25])
def test_the_fast_warp_equals_opencvs_own_mirrored_one(angle: float, scale: float) -> None:
    matrix = np.asarray(cv2.getRotationMatrix2D((20, 30), angle, scale), dtype=np.float64)
    matrix[:, 2] += (5, -3)
    expected = cv2.warpAffine(image(), matrix, (48, 48), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    np.testing.assert_array_equal(warp(image(), matrix), expected)


def test_noise_has_the_spread_drawn_is_centred_and_new_for_each_seed_and_channel() -> None:
    change = Augmentation(OFF.model_copy(update={"noise": 0.04}), 256)
    flat = np.full((256, 256, 4), 100, np.uint8)
    noises = [change(flat, seed).astype(float) - 100 for seed in range(40)]
    assert abs(np.mean(noises)) < 0.05
    spreads = np.array([noise.std() for noise in noises]) / 255
    assert 0.035 < spreads.max() < 0.041
    assert spreads.min() < 0.01
    assert spreads.mean() == pytest.approx(0.02, abs=0.005)
    pairs = np.corrcoef([noise[..., channel].ravel() for noise in noises[:6] for channel in range(4)])
    assert np.abs(pairs - np.eye(len(pairs))).max() < 0.05


def test_a_turned_image_is_one_of_the_eight_views_and_each_comes_as_often() -> None:
    change = Augmentation(OFF.model_copy(update={"warp": 0}), 48)
    field = torch.from_numpy(image()).permute(2, 0, 1)
    views = {view(field).permute(1, 2, 0).numpy().tobytes(): name for name, view in VIEWS.items()}
    seen = Counter(views[change(image(), seed).tobytes()] for seed in range(800))  # fails where it is no view
    assert set(seen) == set(VIEWS)
    assert min(seen.values()) > 70


def test_turning_mirrors_first_and_then_turns_counterclockwise() -> None:
    for quarters in range(4):
        for mirror in (False, True):
            expected = np.rot90(image()[:, ::-1] if mirror else image(), quarters)
            np.testing.assert_array_equal(turn(image(), quarters, mirror=mirror), expected)


def test_the_share_named_is_warped() -> None:
    move = Move(warp=0.3, zoom=1.25, shift=0.1, shear=5)
    move.set_random_seed(0)
    draws = [move.get_params_dependent_on_data({"shape": (32, 32, 4)}, {})["matrix"] is not None for _ in range(1000)]
    assert np.mean(draws) == pytest.approx(0.3, abs=0.05)


def test_every_direction_is_seen() -> None:
    wedge = np.zeros((33, 33, 4), np.uint8)
    wedge[:16, 16:] = 200  # a mark off both axes
    wedge[:8, 16:] = 100
    change = Augmentation(OFF, 33)
    seen = [change(wedge, seed)[..., 0].astype(float) for seed in range(400)]
    rows, columns = np.mgrid[:33, :33] - 16
    angles = [np.degrees(np.arctan2((s * rows).sum(), (s * columns).sum())) for s in seen]
    assert np.histogram(angles, bins=8, range=(-180, 180))[0].min() > 20


def test_the_matrix_is_that_of_the_librarys_own_affine_change() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        scale, shear, shift, centre = random.uniform((0.5, -0.4, -20, 0), (2, 0.4, 20, 50), (2, 4)).T
        angle = random.uniform(-np.pi, np.pi)
        expected = create_affine_transformation_matrix(
            translate=dict(zip("xy", shift, strict=True)),
            shear=dict(zip("xy", np.degrees(shear), strict=True)),
            scale=dict(zip("xy", scale, strict=True)),
            rotate=np.degrees(angle),
            shift=(centre[0], centre[1]),
        )
        np.testing.assert_allclose(affine(scale, angle, shear, shift, centre), expected[:2], atol=1e-9)


def test_half_the_images_are_mirrored_and_none_is_stretched_beyond_the_zoom() -> None:
    move = Move(warp=1, zoom=1.25, shift=0, shear=0)
    move.set_random_seed(0)
    draws = [move.get_params_dependent_on_data({"shape": (32, 32, 4)}, {})["matrix"][:, :2] for _ in range(400)]
    mirrored = np.mean([np.linalg.det(matrix) < 0 for matrix in draws])
    assert mirrored == pytest.approx(0.5, abs=0.1)
    stretches = np.linalg.svd(draws, compute_uv=False)
    assert (stretches.min(), stretches.max()) == (pytest.approx(0.8, abs=0.01), pytest.approx(1.25, abs=0.01))


def with_drops(share: float, **changes: float) -> Augmentation:
    return Augmentation(TINY.augment.model_copy(update={"drop_stains": share, **changes}), 48)


@pytest.mark.parametrize("changes", [{}, {"crop": 0.5}, {"noise": 0}])
def test_dropping_stains_blanks_reference_stains_and_changes_nothing_else(changes: dict[str, float]) -> None:
    complete, dropping = with_drops(0, **changes), with_drops(1, **changes)
    for seed in range(50):
        expected, found = complete(image(), seed), dropping(image(), seed)
        kept = found.max(axis=(0, 1)) > 0
        assert kept[0]
        assert not kept.all()
        np.testing.assert_array_equal(found[..., kept], expected[..., kept])


@pytest.mark.parametrize("share", [0, 0.3, 1])
def test_a_share_of_images_lacks_stains_and_every_subset_is_as_likely(share: float) -> None:
    dropping, count = with_drops(share), 2100
    images = (dropping(image(8), seed) for seed in range(count))
    seen = Counter(tuple((found.max(axis=(0, 1)) > 0).tolist()) for found in images)
    complete = seen.pop((True, True, True, True), 0)
    assert 1 - complete / count == pytest.approx(share, abs=0.04)
    assert len(seen) == (7 if share else 0)
    expected = share * count / 7  # binomial; a standard deviation is about its root
    assert all(abs(times - expected) < 4 * expected**0.5 for times in seen.values())


def test_stains_are_dropped_from_the_result_and_not_from_the_image_given() -> None:
    off, given = OFF.model_copy(update={"drop_stains": 1, "warp": 0}), image()
    change, slot = Augmentation(off, 48), np.empty((48, 48, 4), np.uint8)
    for seed in range(8):
        assert change(given, seed, slot) is slot
        np.testing.assert_array_equal(slot, change(given, seed))
        assert slot.max(axis=(0, 1)).min() == 0
    np.testing.assert_array_equal(given, image())


def test_a_dropped_stain_is_exactly_zero_after_normalisation_and_no_other_channel_is() -> None:
    dropped = torch.from_numpy(with_drops(1)(image(), 3)).permute(2, 0, 1)[None]
    absent = (dropped[0] == 0).flatten(1).all(dim=1)
    assert absent.any()
    normalised = Normalise("image", gain=1)(dropped)[0]
    assert (normalised[absent] == 0).all()
    assert (normalised[~absent].std(dim=(1, 2)) > 0.9).all()
