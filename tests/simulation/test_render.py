"""The pictures: the stains belong to the same cells, and every label shows where its mask says."""

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from pipeline.core.labels import LABELS
from pipeline.core.params import Simulation
from pipeline.simulation.cells import INTERPHASE, METAPHASE, Field, grow
from pipeline.simulation.competition import Entry, plan
from pipeline.simulation.locations import LOCATIONS
from pipeline.simulation.raster import Image
from pipeline.simulation.render import masks, render
from pipeline.simulation.scene import CELL_LINES, Scene, draw_staining
from pipeline.simulation.stains import stain

SETTINGS = Simulation(seed=11, train=1, test=1, size=256, fields_per_antibody=3, near_duplicates=0, test_exposure=0.75)
GREEN, BLUE, RED, YELLOW = range(4)


def entry(*labels: int, antibody: int = 1, field: int = 0, take: int = 0) -> Entry:
    return Entry("id", "train", antibody, labels, field, take)


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
