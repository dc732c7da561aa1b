"""Measures of a protein against what numpy and scipy make of the same regions, drawn so that they are known."""

import numpy as np
import numpy.typing as npt
import pytest
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scipy.stats import pearsonr

from pipeline.core.labels import CHANNELS
from pipeline.models.classical import FEATURES, extract_features
from pipeline.sources.images import shrink

SIDE = 256
Image = npt.NDArray[np.uint8]


def disc(radius: float, row: float = SIDE / 2, column: float = SIDE / 2) -> npt.NDArray[np.bool_]:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return np.asarray((rows - row) ** 2 + (columns - column) ** 2 < radius**2)


CELL, NUCLEUS = disc(80) | disc(40, 40, 40), disc(30)


def cells(protein: npt.NDArray[np.floating], seed: int = 0) -> Image:
    """Two cells, one without a nucleus, whose stains are flat but for noise, so that Otsu finds just their outlines."""
    random = np.random.default_rng(seed)
    stains = {"blue": 30 * CELL + 170 * NUCLEUS, "red": 120 * CELL, "yellow": 90 * CELL}
    noisy = [np.where(stain > 0, stain + random.normal(0, 8, stain.shape), 0) for stain in stains.values()]
    return np.stack([protein, *noisy]).clip(0, 255).round().astype(np.uint8)


def textured() -> npt.NDArray[np.float64]:
    random = np.random.default_rng(1)
    return np.where(CELL, 60 + 50 * NUCLEUS + gaussian_filter(random.normal(0, 60, CELL.shape), 1.5), 0)


def measured(image: Image) -> dict[str, float]:
    return dict(zip(FEATURES, extract_features(image).tolist(), strict=True))


def above_otsu(values: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """By trying every level for the least variance within the two classes."""
    levels = (values / values.max() * 255).astype(int)
    within = [
        sum(part.var() * part.size for part in (levels[levels <= level], levels[levels > level]) if part.size)
        for level in range(255)
    ]
    return np.asarray(levels > int(np.argmin(within)))


def by_hand(image: Image) -> dict[str, float]:
    """The same features; lengths are halved, as the image has half of 512 pixels."""
    green, *others = image.astype(float)
    stains = dict(zip(CHANNELS[1:], others, strict=True))
    smooth = {stain: gaussian_filter(values, 0.75, mode="nearest") for stain, values in stains.items()}
    together = sum(smooth.values())
    cell = above_otsu(np.log1p(together * (765 / np.max(together))))
    nucleus = np.zeros_like(cell)
    nucleus[cell] = above_otsu(smooth["blue"][cell])
    for mask, drawn in ((cell, CELL), (nucleus, NUCLEUS)):
        assert (mask & drawn).sum() > 0.95 * (mask | drawn).sum()
    cytoplasm = cell & ~nucleus
    rim = cell & (distance_transform_edt(cell) <= 4)
    near = cytoplasm & (distance_transform_edt(~nucleus) <= 6)
    regions = {"cell": cell, "cytoplasm": cytoplasm, "nucleus": nucleus}
    mean = {name: green[region].mean() + 1 for name, region in regions.items()}
    parts = {"nucleus": nucleus, "cytoplasm": cytoplasm, "rim": rim, "inside": cytoplasm & ~rim, "near": near}
    found = {"nucleus_to_cytoplasm": np.log(mean["nucleus"] / mean["cytoplasm"])}
    found |= {f"share_{name}": green[part].mean() / mean["cell"] for name, part in parts.items()}
    for name, region in regions.items():
        found[f"spread_{name}"] = green[region].std() / mean[name]
        found |= {f"{stain}_{name}": pearsonr(green[region], values[region])[0] for stain, values in stains.items()}
    for grain in (1, 2, 4, 8):
        band = gaussian_filter(green, grain / 2, mode="nearest") - gaussian_filter(green, 0.8 * grain, mode="nearest")
        found |= {f"grain_{grain}_{name}": band[regions[name]].std() / mean[name] for name in ("cytoplasm", "nucleus")}
    return found


def test_every_feature_is_what_its_definition_says() -> None:
    image = cells(textured())
    found, expected = measured(image), by_hand(image)
    assert set(found) == set(expected)
    for name, value in expected.items():
        # The two libraries cut their blurs off at different distances.
        assert found[name] == pytest.approx(value, rel=3e-3, abs=3e-3), name
    assert len(set(FEATURES)) == len(FEATURES)


def test_where_the_protein_is_shows() -> None:
    rim = CELL & (distance_transform_edt(CELL) <= 4)
    found = {name: measured(cells(150.0 * part)) for name, part in (("nucleus", NUCLEUS), ("rim", rim))}
    assert found["nucleus"]["nucleus_to_cytoplasm"] > 2 > 0 > found["rim"]["nucleus_to_cytoplasm"]
    assert found["rim"]["share_rim"] > 5 > 1 > found["nucleus"]["share_rim"]
    like_red = np.where(CELL, cells(textured())[CHANNELS.index("red")], 0).astype(float)
    assert measured(cells(like_red))["red_cytoplasm"] == pytest.approx(1, abs=1e-3)


def test_turning_and_mirroring_change_nothing() -> None:
    image = cells(textured())
    for turned in (np.rot90(image, 1, (1, 2)), np.rot90(image, 2, (1, 2)), image[:, :, ::-1]):
        np.testing.assert_allclose(
            extract_features(np.ascontiguousarray(turned)), extract_features(image), rtol=1e-3, atol=1e-3
        )


def test_another_exposure_changes_little() -> None:
    image = cells(textured())
    darker = (0.6 * image).round().astype(np.uint8)
    np.testing.assert_allclose(extract_features(darker), extract_features(image), rtol=0.02, atol=0.02)


def test_lengths_go_with_the_size_of_the_image() -> None:
    large = np.kron(cells(textured()), np.ones((2, 2), np.uint8))
    small = shrink(large.transpose(1, 2, 0), SIDE).transpose(2, 0, 1)
    # The finest grain is that of the pixels, and the blue stain within a nucleus is its outline, here a sharp one.
    robust = [at for at, name in enumerate(FEATURES) if not name.startswith("grain_1_") and name != "blue_nucleus"]
    np.testing.assert_allclose(extract_features(large)[robust], extract_features(small)[robust], rtol=0.06, atol=0.03)


@pytest.mark.parametrize("value", [0, 1, 255])
@pytest.mark.parametrize("side", [32, 279])  # of 77,841 values the mean in float32 is not exact
def test_an_image_of_one_colour_has_features(value: int, side: int) -> None:
    found = measured(np.full((4, side, side), value, np.uint8))
    assert np.isfinite(list(found.values())).all()
    assert not any(found[f"{stain}_cell"] for stain in CHANNELS[1:])


def test_without_a_nucleus_the_cell_takes_its_place() -> None:
    image = cells(textured())
    image[CHANNELS.index("blue")] = 0
    found = measured(image)
    assert found["share_nucleus"] == pytest.approx(found["share_cytoplasm"])
    assert found["blue_cell"] == 0
