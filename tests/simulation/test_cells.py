"""Fields of cells: sizes and numbers as the culture says, coordinates inside cells, and divisions."""

from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist

from pipeline.simulation.cells import DAUGHTER, DIRECTIONS, INTERPHASE, MARGIN, METAPHASE, CellLine, Field, grow
from pipeline.simulation.raster import Floats, pixel_of
from pipeline.simulation.scene import CELL_LINES, draw_antibody
from tests.fixtures.simulation import CULTURE, LINE, grow_plain

SEEDS = st.integers(0, 2**32)
DIVIDING = [(0, 0), (1, 0), (0, 1), (1, 1)]


def grow_random(seed: int, size: int, metaphases: int = 0, divisions: int = 0) -> Field:
    """A field of a random antibody."""
    rng = np.random.default_rng(seed)
    return grow(rng, draw_antibody(rng, (25,)).culture, size, metaphases=metaphases, divisions=divisions)


def many(count: int = 6, size: int = 64, **changes: Any) -> list[Field]:
    return [grow_plain(size, seed, **changes) for seed in range(count)]


def radius(curves: Floats) -> Floats:
    """Radius of the disc that has the area inside each curve, (n,) from (n, DIRECTIONS) radii."""
    return np.asarray(np.sqrt((curves**2).mean(axis=1)))


def joined(values: Iterable[Floats]) -> Floats:
    return np.concatenate(list(values))


def in_frame(field: Field) -> npt.NDArray[np.bool_]:
    """Which cells have their centre in the image, (n,)."""
    return np.asarray(((field.centres > 0) & (field.centres < field.size)).all(axis=1))


def nuclear_radii(line: CellLine, uneven: float) -> Floats:
    """Radii of the nuclei in several fields, in nominal pixels."""
    grown = many(8, line=replace(line, lobes=0), uneven=uneven, density=1.5)
    return joined(radius(field.nucleus) / field.scale for field in grown)


@pytest.mark.parametrize("line", CELL_LINES, ids=lambda line: line.name)
def test_nuclei_have_the_size_of_the_cell_line(line: CellLine) -> None:
    assert np.exp(np.log(nuclear_radii(line, uneven=0.1)).mean()) == pytest.approx(line.nucleus, rel=0.03)


@pytest.mark.parametrize("uneven", [0.06, 0.15, 0.3])
def test_the_sizes_of_cells_vary_as_told(uneven: float) -> None:
    assert np.log(nuclear_radii(LINE, uneven)).std() == pytest.approx(uneven, rel=0.2)


def test_nuclei_lie_inside_their_cells() -> None:
    for seed in range(10):
        field = grow_random(seed, 64, metaphases=1, divisions=1)
        assert (field.nucleus < field.outline).all()


@pytest.mark.parametrize("line", CELL_LINES, ids=lambda line: line.name)
def test_density_sets_the_number_of_cells_and_how_much_of_the_field_they_cover(line: CellLine) -> None:
    reach = line.reach * line.nucleus
    for density in (0.5, 1, 2):
        grown = many(4, 128, line=line, density=density, spacing=1.6)
        side = grown[0].size / grown[0].scale + 2 * MARGIN * reach
        number = density * side**2 / (np.pi * reach**2)
        for field in grown:
            # Where small cells are dense, the last ones find no space.
            assert 0.8 * number - 1 < len(field.centres) <= number
        covered = np.mean([(field.depth < 1).mean() for field in grown])
        # The corners of a cell lie on the circle of its reach, so that it has half to four fifths of the circle's area.
        assert 1 - np.exp(-0.4 * density) < covered < min(density, 1)


def test_no_two_centres_are_nearer_than_the_spacing() -> None:
    for seed in range(30):
        rng = np.random.default_rng(seed)
        culture = draw_antibody(rng, (25,)).culture
        field = grow(rng, culture, 64, metaphases=seed % 2, divisions=0)
        assert pdist(field.centres).min() >= 0.999999 * culture.spacing * culture.line.nucleus * field.scale


def test_magnification_enlarges_cells_and_shows_fewer_of_them() -> None:
    small, large = many(20, magnification=0.5), many(20, magnification=1)
    sizes = [np.median(joined(radius(field.nucleus) for field in grown)) for grown in (small, large)]
    numbers = [sum(in_frame(field).sum() for field in grown) for grown in (small, large)]
    assert sizes[1] / sizes[0] == pytest.approx(2, rel=0.03)
    assert numbers[0] / numbers[1] == pytest.approx(4, rel=0.1)


def test_images_of_all_sizes_show_the_same_field() -> None:
    small, large = grow_plain(64), grow_plain(256)
    np.testing.assert_allclose(4 * small.centres, large.centres)
    np.testing.assert_allclose(4 * small.outline, large.outline)


def test_clumped_cells_leave_more_of_the_field_empty() -> None:
    def crowding(clumped: float) -> float:
        """Variance over mean of the number of cells in parts of the field: 1 if independent, less if regular."""
        grown = many(40, magnification=0.4, density=0.3, spacing=1.6, clumped=clumped)
        cells = np.array([np.histogramdd(field.centres, bins=4, range=[(0, 64)] * 2)[0] for field in grown])
        return float(cells.var() / cells.mean())

    alone, half, clumps = (crowding(clumped) for clumped in (0, 0.5, 1))
    assert alone < 1 < half < clumps
    assert clumps > 2 * alone


@pytest.mark.parametrize("share", [0, 0.4, 1])
def test_the_share_of_rounded_cells_has_little_cytoplasm(share: float) -> None:
    grown = many(24, rounded=share, line=replace(LINE, reach=3.5))
    reach = joined(radius(field.outline) for field in grown) / joined(radius(field.nucleus) for field in grown)
    uneven = joined((field.outline.std(axis=1) / field.outline.mean(axis=1)) for field in grown)
    # Rounded cells reach up to 1.7 nuclear radii, others about 2.7.
    little = reach < 1.85
    assert little.mean() == pytest.approx(share, abs=0.1)
    assert (uneven[little] < 0.15).all()


def test_the_share_of_blebbing_cells_has_bumps_on_the_outline() -> None:
    def roughness(field: Field) -> Floats:
        """Standard deviation of the part of each outline that has more than 20 periods, relative to its mean."""
        waves = np.fft.rfft(field.outline / field.outline.mean(axis=1, keepdims=True), axis=1) / DIRECTIONS
        return np.asarray(np.sqrt(2 * (np.abs(waves[:, 20:]) ** 2).sum(axis=1)))

    for share in (0, 0.5, 1):
        # Rounded cells are smooth otherwise.
        rough = joined(roughness(field) for field in many(12, rounded=1, blebs=share))
        assert (rough > 0.008).mean() == pytest.approx(share, abs=0.1)
        assert ((rough < 0.005) | (rough > 0.01)).mean() > 0.95


def test_the_share_of_cells_with_processes_has_long_thin_protrusions() -> None:
    def longest(field: Field) -> Floats:
        return np.asarray(field.outline.max(axis=1) / np.median(field.outline, axis=1))

    for share in (0, 0.5, 1):
        # Rounded cells have none otherwise.
        long = joined(longest(field) for field in many(12, rounded=1, processes=share))
        assert (long > 1.3).mean() == pytest.approx(share, abs=0.1)


def test_lobed_nuclei_have_a_dent_and_elongated_cells_are_long() -> None:
    def dent(field: Field) -> Floats:
        return np.asarray(field.nucleus.min(axis=1) / radius(field.nucleus))

    def length(field: Field) -> Floats:
        across = field.outline + np.roll(field.outline, DIRECTIONS // 2, axis=1)
        return np.asarray(across.max(axis=1) / radius(field.outline))

    round_, lobed = (np.median(joined(map(dent, many(line=replace(LINE, lobes=share))))) for share in (0, 1))
    assert lobed < 0.85 * round_
    compact, long = (np.median(joined(map(length, many(line=replace(LINE, elongation=e))))) for e in (0, 0.65))
    assert long > 1.2 * compact


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_a_place_in_a_cell_is_where_the_map_of_depths_says(seed: int) -> None:
    field = grow_plain(256, seed, line=CELL_LINES[seed % len(CELL_LINES)])
    rng = np.random.default_rng(seed)
    cell = rng.integers(0, len(field.centres), 300)
    depth = rng.uniform(-1, 0.98, 300)
    points = field.place(cell, rng.uniform(0, 2 * np.pi, 300), depth)
    own = field.owns(cell, points)
    assert own.sum() > 30
    found = field.depth.ravel()[pixel_of(points[own], field.size)]
    # A pixel's centre is up to 0.7 pixels off, a few percent of a radius.
    assert np.median(np.abs(found - depth[own])) < 0.05


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, dividing=st.sampled_from(DIVIDING))
def test_cells_asked_to_divide_do_so_in_the_frame_beside_one_that_does_not(
    seed: int, dividing: tuple[int, int]
) -> None:
    metaphases, divisions = dividing
    field = grow_random(seed, 64, metaphases, divisions)
    kinds = np.bincount(field.phase[in_frame(field)], minlength=3)
    assert kinds[METAPHASE] == (field.phase == METAPHASE).sum() == metaphases
    assert kinds[DAUGHTER] == (field.phase == DAUGHTER).sum() == 2 * divisions
    assert kinds[INTERPHASE] >= 1
    assert field.phase[field.bridges].tolist() == [[DAUGHTER, DAUGHTER]] * divisions


def test_at_least_one_cell_that_does_not_divide_is_well_inside() -> None:
    for seed in range(40):
        field = grow_random(seed, 64)
        share = field.centres[field.phase == INTERPHASE] / field.size
        assert ((share > 0.25) & (share < 0.75)).all(axis=1).any()


def test_the_number_of_cells_fits_into_the_map_of_owners() -> None:
    """The densest culture of the smallest cells: 150 cells, the dividing ones, and a number for the background."""
    smallest = min(CELL_LINES, key=lambda line: line.reach)
    culture = replace(CULTURE, line=smallest, magnification=0.38, density=2.9, spacing=1.6)
    field = grow(np.random.default_rng(0), culture, 128, metaphases=1, divisions=1)
    assert (field.phase == INTERPHASE).sum() == 150
    assert field.owner.dtype == np.uint8
    assert field.owner.max() == len(field.centres) < 255


def test_a_pixel_belongs_to_the_cell_in_which_it_is_deepest() -> None:
    field = grow_plain(64, density=2, spacing=1.6)
    y, x = np.mgrid[:64, :64]
    depths = np.full((len(field.centres) + 1, 64, 64), 2.0)
    for cell, centre in enumerate(field.centres):
        way = np.hypot(x - centre[0], y - centre[1])
        turn = np.arctan2(y - centre[1], x - centre[0])
        direction = np.rint(turn * DIRECTIONS / (2 * np.pi)).astype(int) % DIRECTIONS
        inner, outer = field.nucleus[cell, direction], field.outline[cell, direction]
        depth = np.where(way < inner, way / inner - 1, (way - inner) / (outer - inner))
        depths[cell] = np.where(depth < 1, depth, 2)
    np.testing.assert_allclose(field.depth, depths.min(axis=0), atol=0.05)
    nearest = np.where(depths.min(axis=0) < 1, depths.argmin(axis=0), len(field.centres))
    assert (field.owner == nearest).mean() > 0.99


def test_a_field_depends_on_the_seed_and_on_nothing_else() -> None:
    one, same, other = grow_random(5, 64, 1, 1), grow_random(5, 64, 1, 1), grow_random(6, 64, 1, 1)
    for part in fields(Field):
        np.testing.assert_array_equal(getattr(one, part.name), getattr(same, part.name))
    assert not np.array_equal(one.owner, other.owner)
