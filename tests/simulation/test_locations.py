"""Each label's light lies where its definition says, in every style that an antibody can have."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from pipeline.core.labels import LABELS
from pipeline.simulation.cells import INTERPHASE, METAPHASE, Field, grow
from pipeline.simulation.locations import LOCATIONS, plasma_membrane
from pipeline.simulation.raster import Image
from pipeline.simulation.render import MASK_LEVEL
from pipeline.simulation.scene import Scene, Staining, draw_antibody
from tests.fixtures.simulation import draw_scene, grow_plain, plain_antibody, plain_staining

SIZE = 512
STYLES = 7
"""Stainings of a test: the plain one and six random ones."""
NUCLEAR = (0, 1, 2, 3, 4, 5)
GOLGI = 7
CYTOPLASMIC = (6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 18, 19, 20, 23, 24, 25, 26, 27)

Mask = npt.NDArray[np.bool_]


@cache
def scene(*, dividing: bool = False) -> Scene:
    """A plain field of large cells."""
    return draw_scene(plain_antibody(0), grow_plain(SIZE, metaphases=int(dividing), divisions=int(dividing)))


def layers(label: int, *, dividing: bool = False) -> Iterator[tuple[Staining, Image]]:
    """The protein at one location of the same field, as stained by several antibodies."""
    for style in range(STYLES):
        rng = np.random.default_rng(style)
        staining = draw_antibody(rng, (label,)).staining if style else plain_staining(label)
        yield staining, LOCATIONS[label](replace(scene(dividing=dividing), staining=staining), rng)


def lit(image: Image) -> Mask:
    """Where a label shows, by the threshold of its mask."""
    return np.asarray(image > MASK_LEVEL * image.max())


def share(image: Image | Mask, where: Mask) -> float:
    """How much of an image's light lies where a mask is true."""
    return float(image[where].sum() / image.sum())


def between(low: float, high: float) -> Mask:
    """Pixels between two depths of their cell."""
    depth = scene().field.depth
    return (depth >= low) & (depth < high)


def ratio(image: Image, where: Mask, elsewhere: Mask) -> float:
    """Ratio of the mean brightness of two places; very large if the second one is dark."""
    return float(image[where].mean() / max(image[elsewhere].mean(), 1e-9))


def whole_cells(field: Field) -> list[int]:
    """Cells whose nucleus and surroundings are inside the image."""
    return np.flatnonzero(((field.centres > 50) & (field.centres < SIZE - 50)).all(axis=1)).tolist()


def spots(image: Image, level: float = MASK_LEVEL) -> npt.NDArray[np.intp]:
    """Number of connected spots in each whole cell; ``level`` is relative to the brightest pixel."""
    field = scene().field
    number, _ = ndimage.label(image > level * image.max())
    return np.array([len(np.setdiff1d(number[field.owner == cell], [0])) for cell in whole_cells(field)])


def from_pole(field: Field) -> Image:
    """Angle between each pixel and its cell's organising centre, seen from the cell's centre: (S, S), 0 to pi."""
    y, x = np.mgrid[:SIZE, :SIZE]
    turn = np.arctan2(y - field.of_cells(field.centres[:, 1]), x - field.of_cells(field.centres[:, 0]))
    return np.asarray(np.abs(np.angle(np.exp(1j * (turn - field.of_cells(field.pole))))))


def to_organising_centres() -> Image:
    """Distance of each pixel from the nearest organising centre, (S, S) in pixels."""
    y, x = np.mgrid[:SIZE, :SIZE]
    points = scene().organising_centre(np.arange(len(scene().field.centres)))
    return np.asarray(np.min([np.hypot(x - right, y - down) for right, down in points], axis=0))


@pytest.mark.parametrize("label", range(len(LABELS)), ids=LABELS)
def test_a_layer_is_light_about_as_bright_as_told(label: int) -> None:
    for _, image in layers(label, dividing=True):
        assert image.shape == (SIZE, SIZE)
        assert np.isfinite(image).all()
        assert image.min() > -1e-4
        assert 0.8 < image.max() < 9


@pytest.mark.parametrize("label", NUCLEAR, ids=lambda label: LABELS[label])
def test_nuclear_labels_lie_in_nuclei(label: int) -> None:
    for _, image in layers(label):
        assert share(lit(image), between(-1, 0.1)) > 0.98
        assert ratio(image, between(-1, 0.05), between(0.2, 1)) > 3


@pytest.mark.parametrize("label", CYTOPLASMIC, ids=lambda label: LABELS[label])
def test_cytoplasmic_labels_lie_in_the_cytoplasm(label: int) -> None:
    for _, image in layers(label):
        # Golgi stacks partly lie over the nucleus.
        assert share(lit(image), between(-0.5 if label == GOLGI else -0.15, 1)) > 0.8
        assert ratio(image, between(0, 1), scene().field.depth > 1) > 10


@pytest.mark.parametrize("seed", range(3))
def test_in_all_cultures_nuclear_labels_lie_in_nuclei_and_cytoplasmic_ones_in_cells(seed: int) -> None:
    for label in NUCLEAR + CYTOPLASMIC:
        antibody = draw_antibody(np.random.default_rng([seed, label]), (label,))
        field = grow(np.random.default_rng(seed), antibody.culture, 256, metaphases=0, divisions=0)
        image = LOCATIONS[label](draw_scene(antibody, field, seed), np.random.default_rng(seed))
        # One pixel more, because the nuclei of some cultures are only ten pixels wide.
        where = ndimage.binary_dilation(field.depth < (0 if label in NUCLEAR else 1))
        assert share(lit(image), where) > (0.9 if label in NUCLEAR else 0.8), LABELS[label]


def test_nucleoplasm_is_darker_in_nucleoli_and_in_the_cytoplasm() -> None:
    nucleoli = scene().stains.nucleoli > 0
    for _, image in layers(0):
        assert ratio(image, nucleoli, between(-1, -0.1) & ~nucleoli) < 0.85
        assert ratio(image, between(0.05, 1), between(-1, -0.1)) < 0.3


def test_the_nuclear_membrane_is_a_rim() -> None:
    for _, image in layers(1):
        assert ratio(image, between(-0.1, 0.05), between(-1, -0.3)) > 1.2


def test_nucleoli_and_their_centres_lie_in_the_nucleoli_of_the_dna_stain() -> None:
    nucleoli = scene().stains.nucleoli > 0
    for _, image in layers(2):
        assert share(lit(image), nucleoli) == 1
    for _, image in layers(3):
        assert share(lit(image), ndimage.binary_dilation(nucleoli, iterations=2)) > 0.9


def test_speckles_are_many_spots_between_the_nucleoli() -> None:
    for _, image in layers(4):
        assert image[scene().stains.nucleoli > 0].max() == 0
        assert spots(image, 0.5).mean() > 10


def test_nuclear_bodies_are_one_to_a_dozen_dots() -> None:
    for staining, image in layers(5):
        assert spots(image).min() >= 1
        assert spots(image).max() <= 12 * max(staining.count, 1)


def test_the_reticulum_is_that_of_the_yellow_stain_and_fades_outwards() -> None:
    for _, image in layers(6):
        assert np.corrcoef(image.ravel(), scene().stains.yellow.ravel())[0, 1] > 0.6
        assert ratio(image, between(0.1, 0.3), between(0.6, 0.9)) > 1.5


def test_golgi_and_aggresome_lie_on_the_side_of_the_organising_centre() -> None:
    beside = from_pole(scene().field) < np.pi / 2
    for label, least in ((GOLGI, 0.75), (24, 0.9)):
        for _, image in layers(label):
            assert share(lit(image), beside) > least


def test_most_cells_have_one_aggresome() -> None:
    count = np.concatenate([spots(image) for _, image in layers(24)])
    assert 0.5 < (count > 0).mean() < 0.95
    assert np.median(count[count > 0]) == 1


@pytest.mark.parametrize(
    ("label", "fewest", "most"),
    [(8, 50, 150), (9, 20, 80), (10, 10, 50), (20, 5, 30), (26, 2, 15), (27, 2, 12)],
    ids=lambda value: LABELS[value] if value < len(LABELS) else str(value),
)
def test_small_organelles_are_as_many_as_told(label: int, fewest: int, most: int) -> None:
    counts = {staining.count: spots(image).mean() for staining, image in layers(label)}
    assert fewest < counts[1] < most
    # Less than the ratio of the antibodies' counts, because spots that touch are counted as one.
    assert counts[max(counts)] > 1.2 * counts[min(counts)]


def test_lysosomes_are_larger_than_endosomes_and_these_than_peroxisomes() -> None:
    def area(label: int) -> float:
        number, _ = ndimage.label(lit(next(layers(label))[1]))
        return float(np.median(np.bincount(number.ravel())[1:]))

    assert area(8) <= area(9) < area(10)


@pytest.mark.parametrize("label", [8, 10, 20, 23], ids=lambda label: LABELS[label])
def test_organelles_that_crowd_around_the_nucleus_do_so(label: int) -> None:
    for _, image in layers(label):
        assert ratio(image, between(0.05, 0.4), between(0.6, 0.9)) > 1.7


def test_the_nucleus_is_darker_than_the_cytosol_and_free_of_mitochondria() -> None:
    inner = between(-1, -0.1)
    for _, image in layers(25):
        assert ratio(image, inner, between(0.05, 0.4)) < 0.6
        assert ratio(image, between(0.8, 1), between(0.05, 0.3)) < 0.95
    for _, image in layers(23):
        assert image[inner].max() == 0


def test_intermediate_filaments_are_a_cage_around_the_nucleus() -> None:
    for staining, image in layers(11):
        assert ratio(image, between(-1, -0.1), between(0.05, 0.4)) < 0.2
        _, wide, _ = staining.style
        assert ratio(image, between(0.7, 1), between(0.05, 0.4)) < (1.1 if wide >= 0.5 else 0.9)


def test_actin_fibres_of_a_cell_are_parallel_and_other_filaments_are_not() -> None:
    def order(image: Image) -> float:
        """0 for lines in all directions, 1 for parallel ones, averaged over cells: the structure tensor's coherence."""
        down, right = (ndimage.gaussian_filter(image, 1, order=axes) for axes in ((1, 0), (0, 1)))
        coherence = []
        for cell in whole_cells(scene().field):
            x, y = (slope[(scene().field.owner == cell) & between(0.05, 0.9)] for slope in (right, down))
            coherence.append(np.hypot((x**2 - y**2).sum(), 2 * (x * y).sum()) / (x**2 + y**2).sum())
        return float(np.mean(coherence))

    assert min(order(image) for _, image in layers(12)) > 0.7
    assert max(order(image) for label in (11, 14) for _, image in layers(label)) < 0.4


def test_focal_adhesions_and_the_membrane_lie_at_the_outline() -> None:
    for _, image in layers(13):
        dash, count = ndimage.label(lit(image))
        end = ndimage.maximum(scene().field.depth, dash, np.arange(1, count + 1))
        assert (end > 0.85).mean() > 0.6
    for _, image in layers(21):
        assert ratio(image, between(0.92, 1), between(0.2, 0.7)) > 2
        assert share(lit(image), between(0.7, 1) | (scene().field.depth > 1)) > 0.75


def test_some_antibodies_show_hairs_outside_the_membrane() -> None:
    far = ndimage.distance_transform_edt(scene().field.depth > 1) > 10
    outside = [
        plasma_membrane(replace(scene(), staining=replace(plain_staining(21), style=(hairy, 0.5, 0.5))), rng)[far].max()
        for hairy, rng in ((0.2, np.random.default_rng(0)), (0.5, np.random.default_rng(0)))
    ]
    assert outside[0] > 0.1 > outside[1]


def test_microtubules_follow_the_red_stain_and_ends_lie_on_filaments() -> None:
    for _, image in layers(14):
        assert np.corrcoef(image.ravel(), scene().stains.red.ravel())[0, 1] > 0.9
    column, row = np.rint(scene().stains.filaments.reshape(-1, 2)).astype(int).T
    inside = (column >= 0) & (column < SIZE) & (row >= 0) & (row < SIZE)
    joints = np.zeros((SIZE, SIZE), dtype=np.bool_)
    joints[row[inside], column[inside]] = True
    near = ndimage.binary_dilation(joints, iterations=4)
    for _, image in layers(15):
        assert share(lit(image), near) > 0.95


def test_spindle_and_bridge_lie_in_dividing_cells_alone() -> None:
    field = scene(dividing=True).field
    first, second = field.centres[field.bridges[0]]
    for _, spindle in layers(17, dividing=True):
        assert share(spindle, field.of_cells(field.phase == METAPHASE) > 0) > 0.98
    for _, bridge in layers(16, dividing=True):
        y, x = ndimage.center_of_mass(bridge)
        assert np.hypot(*(np.array([x, y]) - (first + second) / 2)) < 6
    for label in (16, 17):
        assert not any(image.any() for _, image in layers(label))


def test_junctions_lie_where_two_cells_touch() -> None:
    numbered = scene().field.owner.astype(int)
    cells = range(len(scene().field.centres))
    second_nearest = np.sort([ndimage.distance_transform_edt(numbered != cell) for cell in cells], axis=0)[1]
    for _, image in layers(22):
        assert lit(image).any()
        assert second_nearest[lit(image)].max() < 6


def test_the_organising_centre_radiates_from_one_point_per_cell() -> None:
    for staining, image in layers(18):
        assert share(image, to_organising_centres() < 16 * staining.spot) > 0.98


def test_centrosomes_are_one_or_two_dots_beside_each_nucleus() -> None:
    assert (scene().field.phase == INTERPHASE).all()
    for _, image in layers(19):
        assert share(image, to_organising_centres() < 12) > 0.95
        assert set(spots(image)) <= {1, 2}
