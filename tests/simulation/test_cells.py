"""Fields of cells: their sizes, the coordinates inside them, divisions, and no overlap of nuclei."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.simulation.cells import DAUGHTER, METAPHASE, CellLine, Field, grow
from pipeline.simulation.raster import pixel_of
from pipeline.simulation.scene import CELL_LINES

SEEDS = st.integers(0, 2**32)


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
