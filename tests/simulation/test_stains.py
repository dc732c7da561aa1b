"""The three reference stains show the same cells, and each property of a preparation does what its name says."""

from dataclasses import fields, replace
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from pipeline.simulation.cells import INTERPHASE, Field
from pipeline.simulation.raster import Image
from pipeline.simulation.stains import Preparation, Stains, draw_preparation, stain
from tests.fixtures.simulation import PREPARATION, grow_plain

Mask = npt.NDArray[np.bool_]


@cache
def field() -> Field:
    return grow_plain(256)


@cache
def stained(seed: int = 5, **changes: float) -> Stains:
    """The stains of one field in the plain preparation, except for the ``changes``."""
    return stain(field(), replace(PREPARATION, **changes), np.random.default_rng(seed))


def between(low: float, high: float) -> Mask:
    """Pixels between two depths of their cell."""
    return (field().depth >= low) & (field().depth < high)


AROUND, MIDDLE, EDGE, INNER = (0, 0.1), (0.4, 0.6), (0.9, 1), (-1, -0.2)
"""Depths: around the nucleus, in the middle of the cytoplasm, at the outline, and inside the nucleus."""


def change(after: Image, before: Image, depths: tuple[float, float]) -> float:
    """Ratio of the mean brightness between two depths."""
    where = between(*depths)
    return float(after[where].mean() / before[where].mean())


def contrast(image: Image, where: Mask) -> float:
    """Standard deviation over mean inside a cell, averaged over the cells."""
    parts = [image[where & (field().owner == cell)] for cell in range(len(field().centres))]
    return float(np.mean([part.std() / part.mean() for part in parts if len(part) > 100]))


def test_reference_stains_belong_to_the_same_cells() -> None:
    drawn = stained()
    nuclei, around, edge = between(-1, 0), between(0, 0.3), between(0.7, 1)
    background = field().owner == len(field().centres)
    assert drawn.blue[nuclei].mean() > 0.3
    assert drawn.blue[~nuclei].max() == 0
    assert drawn.red[around].mean() > 1.5 * drawn.red[nuclei].mean()
    assert drawn.yellow[around].mean() > 1.5 * drawn.yellow[edge].mean() > 0
    assert drawn.yellow[around].mean() > 2 * drawn.yellow[nuclei].mean()
    assert drawn.red[background].mean() < 0.05 * drawn.red[around].mean()
    assert drawn.yellow[background].max() == 0


def test_chromatin_is_the_contrast_of_the_dna() -> None:
    weak, strong = (contrast(stained(chromatin=c, nucleolus_dark=0).blue, between(*INNER)) for c in (0.05, 0.2))
    assert strong / weak == pytest.approx(4, rel=0.15)


def test_nuclei_have_the_number_and_the_size_of_nucleoli_asked_for() -> None:
    centres = field().centres
    whole = np.flatnonzero(((centres > 20) & (centres < 236)).all(axis=1))

    def bodies(**changes: float) -> npt.NDArray[np.intp]:
        """Number of nucleoli of each nucleus, without specks of a few pixels."""
        count = []
        for seed in range(4):
            number, _ = ndimage.label(stained(seed, **changes).nucleoli)
            area = np.bincount(number.ravel())
            in_cell = [np.setdiff1d(number[field().owner == cell], [0]) for cell in whole]
            count += [int((area[parts] > 9).sum()) for parts in in_cell]
        return np.array(count)

    def area(**changes: float) -> float:
        return float(np.mean([stained(seed, **changes).nucleoli.sum() for seed in range(4)]))

    assert (bodies(nucleoli=1, nucleolus_size=1.4) == 1).mean() > 0.9
    # Some of several nucleoli merge, and the smallest ones are not seen.
    few, many = (bodies(nucleoli=number, nucleolus_size=0.7).mean() for number in (1, 3))
    assert 0.4 < few < 1
    assert 1.5 * few < many < 3
    assert area(nucleoli=3) / area(nucleoli=1) == pytest.approx(3, rel=0.25)
    assert area(nucleoli=1, nucleolus_size=1.4) / area(nucleoli=1, nucleolus_size=0.7) == pytest.approx(4, rel=0.25)
    assert not stained().nucleoli[field().depth > -0.05].any()


@pytest.mark.parametrize("dark", [0.1, 0.5, 0.95])
def test_nucleoli_lack_a_share_of_the_dna(dark: float) -> None:
    drawn = stained(nucleolus_dark=dark, chromatin=0.05)
    core = ndimage.binary_erosion(drawn.nucleoli > 0, iterations=2)
    interphase = field().of_cells(field().phase == INTERPHASE) > 0
    rest = between(*INNER) & interphase & ~ndimage.binary_dilation(drawn.nucleoli > 0, iterations=2)
    cells = [(core & (field().owner == cell), rest & (field().owner == cell)) for cell in range(len(field().centres))]
    ratio = [drawn.blue[inner].mean() / drawn.blue[outer].mean() for inner, outer in cells if inner.sum() > 5]
    assert len(ratio) > 5
    assert np.mean(ratio) == pytest.approx(1 - dark, abs=0.06)


def test_the_number_of_filaments_is_that_of_the_preparation() -> None:
    few, many = stained(filaments=0.5), stained(filaments=1)
    assert len(many.filaments) / len(few.filaments) == pytest.approx(2, rel=0.02)
    assert many.red.mean() > few.red.mean()


def test_microtubules_are_brighter_around_the_nucleus_or_at_the_outline_if_told() -> None:
    even = stained(red_diffuse=0).red
    perinuclear, cortex = stained(red_diffuse=0, perinuclear=1).red, stained(red_diffuse=0, cortex=1).red
    assert [change(perinuclear, even, depths) for depths in (AROUND, EDGE)] == pytest.approx([1.8, 1.0], abs=0.1)
    assert [change(cortex, even, depths) for depths in (AROUND, EDGE)] == pytest.approx([1.0, 1.6], abs=0.1)


@pytest.mark.parametrize("missing", [0.2, 0.5, 0.97])
def test_a_share_of_the_red_stain_is_missing_over_nuclei(missing: float) -> None:
    everywhere, drawn = stained(red_nucleus=0).red, stained(red_nucleus=missing).red
    assert change(drawn, everywhere, INNER) == pytest.approx(1 - missing, abs=0.05)
    assert change(drawn, everywhere, MIDDLE) == pytest.approx(1, abs=0.01)


def test_diffuse_tubulin_lies_between_the_filaments() -> None:
    added = stained(red_diffuse=0.3).red - stained(red_diffuse=0).red
    assert added[between(*AROUND)].mean() == pytest.approx(0.3, rel=0.3)
    assert added[between(*AROUND)].mean() > added[between(*MIDDLE)].mean() > added[between(*EDGE)].mean() > 0
    assert (added[between(0, 0.9)] > 0).all()


@pytest.mark.parametrize("bleed", [0.1, 0.9])
def test_red_bleeds_into_yellow_and_correlates_them(bleed: float) -> None:
    pure, drawn = stained(), stained(bleed=bleed)
    np.testing.assert_allclose(drawn.yellow - pure.yellow, bleed * pure.red, atol=1e-5)

    def correlation(stains: Stains) -> float:
        where = between(*MIDDLE)
        return float(np.corrcoef(stains.red[where], stains.yellow[where])[0, 1])

    assert abs(correlation(pure)) < 0.1
    assert correlation(drawn) > 0.8 * bleed


@pytest.mark.parametrize("fade", [0.3, 1.0, 2.6])
def test_the_reticulum_fades_exponentially_towards_the_outline(fade: float) -> None:
    low = np.arange(0.1, 0.9, 0.1)
    profile = [stained(fade=fade).yellow[between(depth, depth + 0.1)].mean() for depth in low]
    slope = np.polyfit(low, np.log(profile), 1)[0]
    assert slope == pytest.approx(-fade, abs=0.15)


def test_the_brightness_of_yellow_over_nuclei_is_that_of_the_preparation() -> None:
    inner = [stained(yellow_nucleus=share).yellow[between(*INNER)].mean() for share in (0.05, 0.3)]
    assert inner[1] / inner[0] == pytest.approx(6, rel=0.01)
    # The brightness of the 23 cells varies by a third.
    assert inner == pytest.approx([0.05, 0.3], rel=0.4)
    assert change(stained(yellow_nucleus=0.3).yellow, stained(yellow_nucleus=0.05).yellow, MIDDLE) == pytest.approx(1)


def test_grain_is_the_contrast_of_granules_in_red_and_yellow() -> None:
    smooth, grainy = (stained(grain=grain, red_diffuse=0.5, filaments=0.05) for grain in (0.05, 0.7))
    assert contrast(grainy.red, between(*MIDDLE)) > 1.5 * contrast(smooth.red, between(*MIDDLE))
    assert contrast(grainy.yellow, between(*MIDDLE)) > 1.2 * contrast(smooth.yellow, between(*MIDDLE))
    assert (grainy.blue == smooth.blue).all()


def test_every_property_of_a_preparation_changes_a_stain() -> None:
    plain = stained()
    for part in fields(Preparation):
        changed = stained(**{part.name: 1.5 * getattr(PREPARATION, part.name) + 0.1})
        same = [np.array_equal(getattr(plain, name), getattr(changed, name)) for name in ("blue", "red", "yellow")]
        assert not all(same), part.name


def test_random_preparations_differ_and_depend_on_the_seed_alone() -> None:
    drawn = [draw_preparation(np.random.default_rng(seed)) for seed in range(40)]
    assert drawn[0] == draw_preparation(np.random.default_rng(0))
    for part in fields(Preparation):
        values = np.array([getattr(preparation, part.name) for preparation in drawn])
        assert np.isfinite(values).all()
        assert values.min() >= 0
        assert values.max() > 1.5 * values.min(), part.name
    for name in ("nucleolus_dark", "red_nucleus", "bleed", "yellow_nucleus"):
        assert max(getattr(preparation, name) for preparation in drawn) <= 1, name
