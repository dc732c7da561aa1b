"""Each label's light lies where its definition says."""

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from pipeline.simulation.cells import INTERPHASE, METAPHASE, Field, grow
from pipeline.simulation.locations import LOCATIONS
from pipeline.simulation.raster import Image
from pipeline.simulation.scene import CELL_LINES, Scene, draw_staining
from pipeline.simulation.stains import stain


def scene(labels: tuple[int, ...], size: int = 512, *, dividing: bool = False) -> Scene:
    rng = np.random.default_rng(3)
    field = grow(rng, CELL_LINES[0], size, metaphases=int(dividing), divisions=int(dividing))
    return Scene(field, stain(field, rng), draw_staining(rng, labels))


def layer(label: int, *, dividing: bool = False) -> tuple[Field, Image]:
    drawn = scene((label,), dividing=dividing)
    return drawn.field, LOCATIONS[label](drawn, np.random.default_rng(0))


def share(image: Image, where: npt.NDArray[np.bool_]) -> float:
    """How much of an image's light lies where a mask is true."""
    return float(image[where].sum() / image.sum())


@pytest.mark.parametrize("label", [0, 1, 2, 3, 4, 5])
def test_nuclear_labels_lie_in_nuclei(label: int) -> None:
    field, image = layer(label)
    assert share(image, field.depth < 0.1) > 0.9


@pytest.mark.parametrize("label", [6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 20, 23, 24, 25, 26, 27])
def test_cytoplasmic_labels_lie_in_the_cytoplasm(label: int) -> None:
    field, image = layer(label)
    assert share(image, (field.depth > -0.15) & (field.depth < 1)) > 0.75


def test_focal_adhesions_and_the_membrane_lie_at_the_outline() -> None:
    for label in (13, 21):
        field, image = layer(label)
        assert share(image * (image > 0.3), field.depth > 0.7) > 0.7


def test_microtubules_follow_the_red_stain() -> None:
    drawn = scene((14,))
    green = LOCATIONS[14](drawn, np.random.default_rng(0))
    assert np.corrcoef(green.ravel(), drawn.stains.red.ravel())[0, 1] > 0.9


def test_spindle_and_bridge_lie_in_dividing_cells_alone() -> None:
    field, spindle = layer(17, dividing=True)
    assert share(spindle, field.of_cells(field.phase == METAPHASE) > 0) > 0.99
    field, bridge = layer(16, dividing=True)
    first, second = field.centres[field.bridges[0]]
    y, x = ndimage.center_of_mass(bridge)
    assert np.hypot(*(np.array([x, y]) - (first + second) / 2)) < 6
    for label in (16, 17):
        assert not layer(label)[1].any()


def test_junctions_lie_where_two_cells_touch() -> None:
    field, image = layer(22)
    numbered = field.owner.astype(int)
    apart = [ndimage.distance_transform_edt(numbered != cell) for cell in range(len(field.centres))]
    second_nearest = np.sort(apart, axis=0)[1]
    assert image.any()
    assert second_nearest[image > 0.3].max() < 6


def test_centrosomes_are_one_or_two_dots_beside_each_nucleus() -> None:
    field, image = layer(19)
    visible = (field.phase == INTERPHASE) & ((field.centres > 40) & (field.centres < 472)).all(axis=1)
    dots, _ = ndimage.label(image > 0.8)
    for cell in np.flatnonzero(visible):
        assert len(np.unique(dots[(field.owner == cell) & (dots > 0)])) in (0, 1, 2)
    assert 0.5 < ndimage.label(image > 0.8)[1] / visible.sum() < 3
