"""The rendered images and masks: every label shows where its mask says, and the microscope does what it is told."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage, stats
from sklearn.metrics import roc_auc_score

from pipeline.core.labels import LABELS
from pipeline.simulation.cells import INTERPHASE, Culture, Field, grow
from pipeline.simulation.raster import Image, Pixels
from pipeline.simulation.render import LENS_BLUR, masks, photograph, render, render_with_masks, shifted
from pipeline.simulation.scene import Antibody, Exposure
from tests.fixtures.simulation import EXPOSURE, entry, plain_antibody, settings

SETTINGS = settings(256)
GREEN, BLUE, RED, YELLOW = range(4)
CYTOSOL = LABELS.index("Cytosol")
BRIGHTEST = 1.08
"""Brightness of the lamp in the middle, or everywhere if it is even."""
SEEDS = st.integers(0, 2**32)

Use = Callable[[Antibody], None]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """Make all entries show fields of the given antibody."""

    def show(antibody: Antibody) -> None:
        monkeypatch.setattr("pipeline.simulation.render.draw_antibody", lambda _rng, _labels: antibody)

    return show


@pytest.fixture
def grown(monkeypatch: pytest.MonkeyPatch) -> list[Field]:
    """The fields that were rendered, the last one last."""
    fields: list[Field] = []

    def keep(rng: np.random.Generator, culture: Culture, size: int, *, metaphases: int, divisions: int) -> Field:
        fields.append(grow(rng, culture, size, metaphases=metaphases, divisions=divisions))
        return fields[-1]

    monkeypatch.setattr("pipeline.simulation.render.grow", keep)
    return fields


def exposed(antibody: Antibody, **changes: object) -> Antibody:
    """The antibody with another exposure."""
    return replace(antibody, exposure=replace(antibody.exposure, **changes))  # type: ignore[arg-type]


def correlation(one: npt.ArrayLike, other: npt.ArrayLike) -> float:
    return float(np.corrcoef(np.ravel(one), np.ravel(other))[0, 1])


def even(level: float, size: int = 256) -> list[Image]:
    """Light of the same brightness everywhere, in four channels."""
    return [np.full((size, size), level, dtype=np.float32)] * 4


def take(light: list[Image], seed: int = 0, **changes: object) -> npt.NDArray[np.float64]:
    """A picture with the plain exposure, except for the ``changes``, as a share of white."""
    exposure: Exposure = replace(EXPOSURE, **changes)  # type: ignore[arg-type]
    return photograph(light, exposure, np.random.default_rng(seed), shift=(0, 0)) / 255


@pytest.mark.parametrize("label", range(len(LABELS)), ids=LABELS)
def test_a_mask_is_where_its_label_shows(label: int, use: Use) -> None:
    pictured = entry(label, antibody=label + 1)
    image, shown = render_with_masks(pictured, SETTINGS)
    assert shown.shape == (len(LABELS), 256, 256)
    assert not np.delete(shown, label, axis=0).any()
    assert 0 < shown[label].mean() < 0.6
    green = image[..., GREEN].astype(float)
    assert green[shown[label]].mean() > 1.3 * green[~shown[label]].mean()
    # Without noise, haze and differences between cells, pixels in the mask are brighter than almost all others.
    use(plain_antibody(label))
    image, shown = render_with_masks(pictured, SETTINGS)
    assert roc_auc_score(shown[label].ravel(), image[..., GREEN].ravel()) > 0.98


def test_image_and_masks_are_the_same_drawn_together_or_alone() -> None:
    for pictured in (entry(0, 21, antibody=3), entry(16, antibody=4, take=1)):
        image, shown = render_with_masks(pictured, SETTINGS)
        np.testing.assert_array_equal(image, render(pictured, SETTINGS))
        np.testing.assert_array_equal(shown, masks(pictured, SETTINGS))


def test_each_label_of_several_shows_as_if_alone(use: Use) -> None:
    use(plain_antibody(2, 23))
    both = masks(entry(2, 23), SETTINGS)
    for label in (2, 23):
        np.testing.assert_array_equal(both[label], masks(entry(label), SETTINGS)[label])
    assert both.sum() == both[2].sum() + both[23].sum()
    assert not (both[2] & both[23]).any()


def test_labels_have_the_strength_of_the_antibody(use: Use) -> None:
    strong = plain_antibody(2, 23)
    use(strong)
    image, shown = render_with_masks(entry(2, 23), SETTINGS)
    use(replace(strong, staining=replace(strong.staining, strength={2: 1, 23: 0.25})))
    weak = render(entry(2, 23), SETTINGS)[..., GREEN].astype(float)
    ratio = [weak[shown[label]].mean() / image[..., GREEN][shown[label]].mean() for label in (2, 23)]
    assert ratio == pytest.approx([1, 0.25], abs=0.03)


def test_a_picture_is_the_same_each_time_and_differs_between_fields() -> None:
    first = render(entry(25), SETTINGS)
    np.testing.assert_array_equal(first, render(entry(25), SETTINGS))
    assert (first != render(entry(25, field=1), SETTINGS)).any()


def test_cells_without_the_protein_are_dark_and_not_in_the_mask(use: Use, grown: list[Field]) -> None:
    everywhere = plain_antibody(CYTOSOL)
    some = replace(everywhere, staining=replace(everywhere.staining, expressing=0.4))
    contain = []
    for field in range(12):
        use(everywhere)
        full, mask = render_with_masks(entry(CYTOSOL, field=field), SETTINGS)
        use(some)
        partly, part = render_with_masks(entry(CYTOSOL, field=field), SETTINGS)
        assert not (part & ~mask)[CYTOSOL].any()
        cells = grown[-1]
        for cell in np.flatnonzero(cells.phase == INTERPHASE):
            where = mask[CYTOSOL] & (cells.owner == cell) & (cells.depth < 0.7)
            if where.sum() > 100:
                shown = part[CYTOSOL][where]
                assert shown.all() or not shown.any()
                ratio = partly[..., GREEN][where].mean() / full[..., GREEN][where].mean()
                # The lens blurs the light of the neighbours into a dark cell.
                assert ratio > 0.9 if shown.all() else ratio < 0.15
                contain.append(shown.all())
    # One cell of each field contains the protein in any case.
    expected = 0.4 * len(contain) + 0.6 * 12
    assert np.sum(contain) == pytest.approx(expected, abs=4 * np.sqrt(0.24 * len(contain)))


def test_at_least_one_cell_in_the_frame_and_all_dividing_ones_contain_the_protein(use: Use, grown: list[Field]) -> None:
    nowhere = plain_antibody(CYTOSOL)
    use(replace(nowhere, staining=replace(nowhere.staining, expressing=0)))
    for field in range(12):
        shown = masks(entry(CYTOSOL, field=field), SETTINGS)[CYTOSOL]
        cells = grown[-1]
        lit = set(cells.owner[shown].tolist())
        dividing = set(np.flatnonzero(cells.phase != INTERPHASE).tolist())
        assert lit
        assert len(lit - dividing) <= 1
    for label in (LABELS.index("Cytokinetic bridge"), LABELS.index("Mitotic spindle")):
        use(replace(nowhere, staining=replace(plain_antibody(label).staining, expressing=0)))
        assert masks(entry(label), SETTINGS)[label].any()


def find_shift(image: Pixels, copy: Pixels) -> tuple[int, int]:
    """The translation of a copy, down and right, at which it resembles the image most."""
    shifts = [(down, right) for down in range(-4, 5) for right in range(-4, 5)]
    return max(
        shifts, key=lambda shift: correlation(_inner(image), _inner(np.roll(copy, (-shift[0], -shift[1]), (0, 1))))
    )


def _inner(image: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    return image[8:-8, 8:-8]


def test_a_near_duplicate_shows_the_same_cells_dirt_and_focus_shifted_and_otherwise_exposed(use: Use) -> None:
    use(exposed(plain_antibody(CYTOSOL), misplaced=0.5, debris=30))
    image, shown = render_with_masks(entry(CYTOSOL), SETTINGS)
    copy, moved = render_with_masks(entry(CYTOSOL, take=1), SETTINGS)
    down, right = find_shift(image, copy)
    assert (down, right) != (0, 0)
    back = np.roll(copy, (-down, -right), (0, 1))
    for channel in range(4):
        assert correlation(_inner(image[..., channel]), _inner(back[..., channel])) > 0.98
    assert _inner(image).mean(axis=(0, 1)) != pytest.approx(_inner(back).mean(axis=(0, 1)), rel=0.01)
    np.testing.assert_array_equal(_inner(shown[CYTOSOL]), _inner(np.roll(moved[CYTOSOL], (-down, -right), (0, 1))))
    another = render(entry(CYTOSOL, field=1), SETTINGS)
    assert correlation(image, another) < 0.5


def test_debris_is_in_all_channels_and_as_many_specks_as_told(use: Use) -> None:
    specks = []
    for field in range(8):
        use(plain_antibody(CYTOSOL))
        clean = render(entry(CYTOSOL, field=field), SETTINGS).astype(float)
        use(exposed(plain_antibody(CYTOSOL), debris=10))
        added = render(entry(CYTOSOL, field=field), SETTINGS) - clean
        assert added.min() >= -1
        visible = added[added.max(axis=2) > 8]
        assert (visible[:, [BLUE, RED, YELLOW, GREEN]].max(axis=0) > 2).sum() >= 3
        specks.append(ndimage.label((added > 1).any(axis=2))[1])
    # The mean of 8 Poisson numbers has a standard deviation of 1.1; some specks are too faint or touch.
    assert np.mean(specks) == pytest.approx(10, abs=3.5)


def test_fibres_are_long_thin_and_in_all_channels(use: Use) -> None:
    for field in range(3):
        use(plain_antibody(CYTOSOL))
        clean = render(entry(CYTOSOL, field=field), SETTINGS).astype(float)
        use(exposed(plain_antibody(CYTOSOL), fibres=3))
        added = render(entry(CYTOSOL, field=field), SETTINGS) - clean
        assert added.min() >= -1
        if (lit := (added > 2).any(axis=2)).any():
            number, _ = ndimage.label(lit, np.ones((3, 3)))
            largest = number == 1 + np.argmax(np.bincount(number.ravel())[1:])
            rows, columns = np.nonzero(largest)
            length = max(np.ptp(rows), np.ptp(columns))
            assert length > 20
            assert largest.sum() < 12 * length  # pixels wide


def test_glare_spreads_a_share_of_the_light_over_the_surroundings(use: Use, grown: list[Field]) -> None:
    use(exposed(plain_antibody(CYTOSOL), gain=(0.5,) * 4))
    clean = render(entry(CYTOSOL), SETTINGS).astype(float)
    use(exposed(plain_antibody(CYTOSOL), gain=(0.5,) * 4, glare=0.4))
    image = render(entry(CYTOSOL), SETTINGS).astype(float)
    assert image.mean(axis=(0, 1)) / clean.mean(axis=(0, 1)) == pytest.approx(np.full(4, 1.4), abs=0.05)
    cells = grown[-1].depth <= 1
    beside = ~cells & ndimage.binary_dilation(cells, iterations=6)
    # Nuclei, the only blue, are farther away.
    assert (image[beside].mean(axis=0) > clean[beside].mean(axis=0) + 0.5)[[GREEN, RED, YELLOW]].all()


def test_vacuoles_are_dark_in_all_channels_and_outside_nuclei(use: Use, grown: list[Field]) -> None:
    plain = plain_antibody(CYTOSOL)
    use(plain)
    clean = render(entry(CYTOSOL), SETTINGS).astype(float)
    use(replace(plain, culture=replace(plain.culture, vacuoles=8)))
    darker = clean - render(entry(CYTOSOL), SETTINGS)
    assert darker.min() >= -1
    cytoplasm, nuclei = (grown[-1].depth > 0.05) & (grown[-1].depth < 1), grown[-1].depth < -0.2
    assert (darker[cytoplasm] > 3).mean(axis=0)[[GREEN, RED, YELLOW]].min() > 0.01
    assert (darker[nuclei] > 3).mean() < 0.001


def test_off_target_dots_are_green_and_lie_in_cells(use: Use, grown: list[Field]) -> None:
    plain = plain_antibody(2)  # nucleoli leave the cytoplasm dark
    use(plain)
    clean, shown = render_with_masks(entry(2), SETTINGS)
    use(replace(plain, staining=replace(plain.staining, specks=0.2)))
    image, same = render_with_masks(entry(2), SETTINGS)
    np.testing.assert_array_equal(same, shown)
    np.testing.assert_allclose(image[..., BLUE:].astype(int), clean[..., BLUE:], atol=1)
    dots = image[..., GREEN] > clean[..., GREEN] + 5.0
    assert dots.sum() > 50
    assert (grown[-1].depth[dots] <= 1).mean() > 0.95


def test_labels_vary_between_cells_independently_of_each_other(use: Use, grown: list[Field]) -> None:
    both = plain_antibody(0, CYTOSOL)
    ratios = []
    use(replace(both, staining=replace(both.staining, independent=0.3)))
    for field in range(4):
        green = render(entry(0, CYTOSOL, field=field), SETTINGS)[..., GREEN].astype(float)
        owner, depth = grown[-1].owner, grown[-1].depth
        for cell in np.flatnonzero(grown[-1].phase == INTERPHASE):
            parts = [(owner == cell) & (depth > low) & (depth < high) for low, high in ((-0.9, -0.2), (0.1, 0.5))]
            if min(part.sum() for part in parts) > 80:
                inner, outer = (green[part].mean() for part in parts)
                ratios.append(np.log(inner / outer))
    # Each label contributes a standard deviation of 0.3, but some cytosol is in the nucleus.
    assert np.std(ratios) == pytest.approx(0.3 * np.sqrt(2), rel=0.35)


def test_the_share_of_misplaced_cells_is_out_of_focus(use: Use, grown: list[Field]) -> None:
    blurred = []
    for field in range(4):
        use(plain_antibody(CYTOSOL))
        sharp = render(entry(CYTOSOL, field=field), SETTINGS)[..., RED].astype(float)
        use(exposed(plain_antibody(CYTOSOL), misplaced=0.5))
        image = render(entry(CYTOSOL, field=field), SETTINGS)[..., RED].astype(float)
        for cell in range(len(grown[-1].centres)):
            where = (grown[-1].owner == cell) & (grown[-1].depth < 0.5)
            if where.sum() > 200:
                assert image[where].mean() == pytest.approx(sharp[where].mean(), rel=0.15)
                blurred.append(image[where].std() / sharp[where].std())
    apart = np.array(blurred)
    assert ((apart < 0.85) | (apart > 0.97)).mean() > 0.9
    assert (apart < 0.9).mean() == pytest.approx(0.5, abs=3 * np.sqrt(0.25 / len(apart)))


def test_test_images_are_darker_as_told(use: Use) -> None:
    use(plain_antibody(CYTOSOL))
    train, test = (render(replace(entry(CYTOSOL), split=split), SETTINGS).mean() for split in ("train", "test"))
    assert test / train == pytest.approx(SETTINGS.test_exposure, abs=0.02)


@given(seed=SEEDS, down=st.integers(-3, 3), right=st.integers(-3, 3))
def test_a_shift_moves_every_pixel_that_stays_in_the_frame(seed: int, down: int, right: int) -> None:
    image = np.random.default_rng(seed).random((9, 9)).astype(np.float32)
    moved = shifted(image, (down, right))
    for y in range(9):
        for x in range(9):
            if 0 <= y - down < 9 and 0 <= x - right < 9:
                assert moved[y, x] == image[y - down, x - right]


def test_noise_is_poissons_with_the_photons_of_each_channel() -> None:
    photons = (5, 30, 100, 1000)
    counted = take(even(0.1), photons=photons) * photons
    assert counted.var(axis=(0, 1)) / counted.mean(axis=(0, 1)) == pytest.approx(np.ones(4), rel=0.03)
    assert np.corrcoef(counted.reshape(-1, 4).T) == pytest.approx(np.eye(4), abs=0.02)
    # With 5 photons for white, each number of photons is a gray level of its own; 5 and more are white.
    seen = np.bincount(np.rint(5 * take(even(0.3), photons=photons)[..., 0]).astype(int).ravel(), minlength=6)
    law = stats.poisson(5 * 0.3 * BRIGHTEST).pmf(np.arange(5))
    assert stats.chisquare(seen, np.append(law, 1 - law.sum()) * seen.sum()).pvalue > 0.001


def test_empty_places_have_the_background_and_a_negative_one_swallows_weak_light() -> None:
    background = (0.0, 0.05, -0.03, 0.2)
    empty, weak = (take(even(level), background=background).mean(axis=(0, 1)) for level in (0, 0.02))
    assert empty == pytest.approx([0, 0.05, 0, 0.2], abs=0.003)
    assert weak[2] == 0
    assert weak[[0, 1, 3]] == pytest.approx(empty[[0, 1, 3]] + 0.02 * BRIGHTEST, abs=0.003)


def test_gain_brightens_each_channel(use: Use) -> None:
    plain = plain_antibody(CYTOSOL)
    use(plain)
    image = render(entry(CYTOSOL), SETTINGS).mean(axis=(0, 1))
    use(exposed(plain, gain=(0.5, 0.8, 0.7, 0.6)))
    assert render(entry(CYTOSOL), SETTINGS).mean(axis=(0, 1)) / image == pytest.approx([0.5, 0.8, 0.7, 0.6], abs=0.03)


def test_too_much_light_is_white() -> None:
    assert take(even(9, 64)).min() == 1


@pytest.mark.parametrize("defocus", [2, 4, 8])
def test_defocus_blurs_in_pixels_at_512(defocus: float) -> None:
    """The slope across an edge is the blur itself; its standard deviation is that of the lens and of the defocus."""
    edge: Image = np.zeros((256, 256), dtype=np.float32)
    edge[:, 128:] = 0.8
    slope = np.diff(take([edge] * 4, defocus=(defocus, defocus, 0, 0)).mean(axis=0), axis=0)
    x = np.arange(0.5, 255)[:, None] - 127.5
    width = np.sqrt((slope * x**2).sum(axis=0) / slope.sum(axis=0))
    assert width[:2] == pytest.approx([np.hypot(LENS_BLUR, defocus) / 2] * 2, rel=0.1)
    assert width[2] < 0.6


def test_the_lamp_is_brightest_near_the_middle_and_falls_off_as_told() -> None:
    assert np.ptp(take(even(0.5), vignette=0)) < 0.01
    for seed in range(4):
        weak, strong = (take(even(0.5), seed, vignette=vignette)[..., 0] for vignette in (0.1, 0.4))
        y, x = np.unravel_index(ndimage.gaussian_filter(strong, 4).argmax(), strong.shape)
        assert 0.2 * 256 < min(y, x) <= max(y, x) < 0.8 * 256
        falls = [1 - image.min() / image.max() for image in (weak, strong)]
        assert 0.1 < falls[0] < 0.45
        assert falls[1] > 2 * falls[0]
