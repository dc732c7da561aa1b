"""Drawing on a raster: lines, spots, discs, erosion, dilation, and parts that a mask covers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from pipeline.simulation.raster import STRIDE, covered, discs, splat, spread, trace

SEEDS = st.integers(0, 2**32)


@given(seed=SEEDS, count=st.integers(1, 6), joints=st.integers(2, 7))
def test_a_traced_path_has_the_length_of_its_segments(seed: int, count: int, joints: int) -> None:
    paths = np.random.default_rng(seed).uniform(0, 60, (count, joints, 2))
    path, points, length = trace(paths)
    expected = np.linalg.norm(np.diff(paths, axis=1), axis=2).sum(axis=1)
    np.testing.assert_allclose(np.bincount(path, length, minlength=count), expected)
    assert np.linalg.norm(points[1:] - points[:-1], axis=1)[path[1:] == path[:-1]].max(initial=0) <= STRIDE


@given(seed=SEEDS)
def test_splatting_equals_adding_point_by_point(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points, weights = rng.uniform(-3, 12, (40, 2)), rng.random(40)
    expected = np.zeros((8, 8))
    for (x, y), weight in zip(np.rint(points).astype(int), weights, strict=True):
        if 0 <= x < 8 and 0 <= y < 8:
            expected[y, x] += weight
    np.testing.assert_allclose(splat(8, points, weights), expected, rtol=1e-5)


def test_discs_cover_their_area_and_rings_are_hollow() -> None:
    centre, radius = np.array([[20.25, 19.5]]), np.array([8.0])
    disc = discs(40, centre, radius)
    # OpenCV counts the pixels that the circle itself crosses as well.
    assert np.pi * 8.0**2 < disc.sum() < np.pi * 8.7**2
    assert np.array(ndimage.center_of_mass(disc)) == pytest.approx([19.5, 20.25], abs=0.3)
    ring = discs(40, centre, radius, thickness=2)
    assert ring[19:21, 20].max() < 0.01
    assert ring[20, 28] > 0.5


def test_spread_equals_scipys_erosion_and_dilation() -> None:
    image = np.random.default_rng(0).integers(0, 255, (30, 30)).astype(np.uint8)
    low, high = spread(image, 1)
    cross = ndimage.generate_binary_structure(2, 1)
    np.testing.assert_array_equal(low, ndimage.grey_erosion(image, footprint=cross, mode="nearest"))
    np.testing.assert_array_equal(high, ndimage.grey_dilation(image, footprint=cross, mode="nearest"))


@given(seed=SEEDS, positions=st.integers(1, 12), side=st.integers(1, 9))
def test_a_part_is_covered_if_any_of_its_pixels_is_set(seed: int, positions: int, side: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((positions * side, positions * side)) < rng.choice([0, 0.01, 0.3, 1])
    found = covered(mask, positions)
    for row in range(positions):
        for column in range(positions):
            part = mask[row * side : (row + 1) * side, column * side : (column + 1) * side]
            assert found[row, column] == part.any()


@pytest.mark.parametrize(("size", "positions"), [(512, 48), (100, 12), (7, 5), (64, 63)])
def test_a_pixel_across_two_parts_covers_both(size: int, positions: int) -> None:
    rng = np.random.default_rng(0)
    low, high = np.arange(positions) * size, np.arange(1, positions + 1) * size
    pixel = np.arange(size) * positions
    # In units of 1 / positions pixels: part k reaches from k * size to (k + 1) * size.
    meet = (pixel < high[:, None]) & (pixel + positions > low[:, None])
    for _ in range(3):
        mask = rng.random((size, size)) < 1 / size
        expected = (meet.astype(int) @ mask @ meet.T.astype(int)) > 0
        np.testing.assert_array_equal(covered(mask, positions), expected)
