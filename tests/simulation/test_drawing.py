"""The tools: lines, spots, coordinates inside cells, and the camera."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pipeline.simulation.cells import DAUGHTER, METAPHASE, CellLine, Field, grow
from pipeline.simulation.raster import STRIDE, discs, pixel_of, splat, spread, trace
from pipeline.simulation.render import PHOTONS, photograph, shifted
from pipeline.simulation.scene import CELL_LINES

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


@pytest.mark.parametrize("line", CELL_LINES, ids=lambda line: line.name)
def test_a_field_is_full_of_cells_of_the_sizes_the_atlas_shows(line: CellLine) -> None:
    fields = [grow(np.random.default_rng(seed), line, 512, metaphases=0, divisions=0) for seed in range(4)]
    for field in fields:
        assert 5 <= ((field.centres > 0) & (field.centres < 512)).all(axis=1).sum() <= 25
        assert 0.2 < (field.depth < 1).mean() < 0.95
        assert (field.nucleus < field.outline).all()
    width = 2 * np.concatenate([field.nucleus.mean(axis=1) for field in fields])
    assert 45 < np.median(width) < 75
    assert width.min() > 25


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_a_place_in_a_cell_is_where_the_map_of_depths_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    field = grow(rng, CELL_LINES[seed % len(CELL_LINES)], 256, metaphases=0, divisions=0)
    cell = rng.integers(0, len(field.centres), 300)
    depth = rng.uniform(-1, 0.98, 300)
    points = field.place(cell, rng.uniform(0, 2 * np.pi, 300), depth)
    own = field.owns(cell, points)
    assert own.sum() > 30
    found = field.depth.ravel()[pixel_of(points[own], field.size)]
    # A pixel's centre is up to 0.7 pixels off, a few percent of a radius.
    assert np.median(np.abs(found - depth[own])) < 0.05


def _frame(field: Field, kind: int) -> int:
    inside = ((field.centres > 0) & (field.centres < field.size)).all(axis=1)
    return int(((field.phase == kind) & inside).sum())


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_cells_asked_to_divide_do_so_in_the_frame(seed: int) -> None:
    field = grow(np.random.default_rng(seed), CELL_LINES[seed % len(CELL_LINES)], 128, metaphases=1, divisions=1)
    assert _frame(field, METAPHASE) == 1
    assert _frame(field, DAUGHTER) == 2
    assert field.phase[field.bridges].tolist() == [[DAUGHTER, DAUGHTER]]


def test_nuclei_do_not_overlap() -> None:
    for seed in range(5):
        field = grow(np.random.default_rng(seed), CELL_LINES[4], 512, metaphases=0, divisions=0)
        gap = np.linalg.norm(field.centres[:, None] - field.centres, axis=2)
        np.fill_diagonal(gap, np.inf)
        mean = field.nucleus.mean(axis=1)
        assert (gap > 0.8 * (mean[:, None] + mean)).all()


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
