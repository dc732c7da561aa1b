"""The three reference stains show the same cells."""

from pipeline.simulation.cells import INTERPHASE
from tests.simulation.test_locations import scene


def test_reference_stains_belong_to_the_same_cells() -> None:
    drawn = scene((0,))
    field, stains = drawn.field, drawn.stains
    nuclei, around, edge = (
        field.depth < 0,
        (field.depth > 0) & (field.depth < 0.3),
        (field.depth > 0.7) & (field.depth < 1),
    )
    background = field.owner == len(field.centres)
    assert stains.blue[nuclei].mean() > 0.3
    assert stains.blue[~nuclei].max() == 0
    assert stains.red[around].mean() > 1.5 * stains.red[nuclei].mean()
    assert stains.yellow[around].mean() > 1.5 * stains.yellow[edge].mean() > 0
    assert stains.yellow[around].mean() > 2 * stains.yellow[nuclei].mean()
    assert stains.red[background].mean() < 0.05 * stains.red[around].mean()
    assert stains.yellow[background].max() == 0


def test_nucleoli_are_dark_in_the_dna_stain() -> None:
    drawn = scene((2,))
    inside = drawn.stains.nucleoli > 0
    rest = (drawn.field.depth < -0.1) & ~inside & (drawn.field.of_cells(drawn.field.phase == INTERPHASE) > 0)
    assert drawn.stains.blue[inside].mean() < 0.8 * drawn.stains.blue[rest].mean()
