"""Random antibodies: what all their fields have in common, and that they differ as much as real ones."""

from dataclasses import fields

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.core.labels import LABELS
from pipeline.simulation.competition import plan
from pipeline.simulation.render import render
from pipeline.simulation.scene import EPITHELIAL, JUNCTIONS, Antibody, Staining, draw_antibody
from tests.fixtures.simulation import entry, settings

GREEN, BLUE = 0, 1
CYTOSOL = LABELS.index("Cytosol")
REAL_MEAN = np.array([0.053, 0.055, 0.081, 0.083])
"""Means of the competition's training images, as a share of white, in the order of the channels."""
REAL_SPREAD = np.array([0.033, 0.052, 0.053])
"""Standard deviation between real fields of the means of the reference stains."""


def antibodies(*labels: int) -> list[Antibody]:
    return [draw_antibody(np.random.default_rng(seed), labels) for seed in range(200)]


def test_an_antibody_depends_on_the_seed_alone_and_marks_its_labels() -> None:
    drawn = antibodies(0, 7, 25)
    assert drawn == antibodies(0, 7, 25)
    assert len({antibody.culture for antibody in drawn}) == len(drawn)
    for antibody in drawn:
        strength = antibody.staining.strength
        assert list(strength) == [0, 7, 25]
        assert max(strength.values()) == 1
        assert min(strength.values()) >= 0.2


def test_properties_of_antibodies_vary_within_their_meaning() -> None:
    drawn = antibodies(25)
    for part in fields(Staining):
        if part.name != "strength":
            assert len({getattr(antibody.staining, part.name) for antibody in drawn}) > 10, part.name
    shares = [
        (antibody.culture.clumped, antibody.culture.rounded, antibody.culture.blebs, antibody.staining.expressing,
         antibody.exposure.misplaced, *antibody.staining.haze, *antibody.staining.style)
        for antibody in drawn
    ]  # fmt: skip
    assert np.min(shares) >= 0
    assert np.max(shares) <= 1
    # Most antibodies stain all cells, and most fields have all cells in focus.
    assert 0.6 < np.mean([antibody.staining.expressing == 1 for antibody in drawn]) < 0.8
    assert 0.55 < np.mean([antibody.exposure.misplaced == 0 for antibody in drawn]) < 0.75


def test_cells_with_junctions_are_epithelial_and_dense() -> None:
    with_junctions = antibodies(JUNCTIONS, 0)
    assert {antibody.culture.line.name for antibody in with_junctions} == set(EPITHELIAL)
    assert min(antibody.culture.density for antibody in with_junctions) >= 1
    others = antibodies(0)
    assert len({antibody.culture.line.name for antibody in others}) > 6
    assert min(antibody.culture.density for antibody in others) < 0.4


def test_fields_of_an_antibody_look_more_alike_than_fields_of_two() -> None:
    """Between antibodies the brightness varies at least twice as much as within one: what leaks in random folds."""
    small = settings(128)
    level = np.array([
        [render(entry(CYTOSOL, antibody=a, field=f), small).mean(axis=(0, 1)) for f in range(3)] for a in range(1, 13)
    ])  # fmt: skip
    assert (level.mean(axis=1).std(axis=0) > 2 * level.std(axis=1).mean(axis=0)).all()


@pytest.fixture(scope="module")
def levels() -> npt.NDArray[np.float64]:
    """Mean brightness of the channels in one field of each of 120 antibodies, (120, 4), as a share of white."""
    many = settings(192, seed=1).model_copy(update={"train": 120})
    entries = [drawn for drawn in plan(many) if drawn.split == "train"]
    return np.array([render(drawn, many).mean(axis=(0, 1)) / 255 for drawn in entries])


def test_channel_means_are_near_the_real_ones(levels: npt.NDArray[np.float64]) -> None:
    """The means of 120 fields have a standard error of a tenth themselves."""
    ratio = levels.mean(axis=0) / REAL_MEAN
    np.testing.assert_allclose(ratio[BLUE:], 1, atol=0.35)
    # No spot is drawn smaller than half a pixel, so that green is brighter by a tenth at this size than at 512.
    assert ratio[GREEN] / 1.1 == pytest.approx(1, abs=0.35)


def test_fields_differ_at_least_as_much_as_real_ones(levels: npt.NDArray[np.float64]) -> None:
    assert (levels[:, BLUE:].std(axis=0) > REAL_SPREAD).all()
    low, high = np.percentile(levels, [5, 95], axis=0)
    assert (low < REAL_MEAN / 2).all()
    assert (high > REAL_MEAN * 1.5).all()
