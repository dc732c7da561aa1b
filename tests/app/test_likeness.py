"""Cautions: each of them is raised by what it names, and seldom by images like the training images."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from pipeline.app.likeness import Caution, TrainingLikeness
from pipeline.app.served_run import ServedRun
from pipeline.app.uploads import Sample
from pipeline.core.labels import CHANNELS
from pipeline.sources.images import Image, statistics


def sample(pixels: Image, stains: tuple[str, ...] = CHANNELS) -> Sample:
    brightness = {channel: statistics(pixels[..., CHANNELS.index(channel)]) for channel in stains}
    return Sample("new", pixels, stains, len(pixels), brightness)


def known(served: ServedRun, row: int = 0) -> Image:
    assert served.packed is not None
    return np.array(served.packed.images["sample"][row])


def kinds(cautions: list[Caution]) -> list[str]:
    return [caution.kind for caution in cautions]


def test_few_training_images_are_cautioned_of(served: ServedRun) -> None:
    assert served.packed is not None
    found = [
        kinds(served.likeness.cautions(served.packed.sample(str(id_)), 0.5)) for id_ in served.packed.training["id"]
    ]
    for kind in ("empty channel", "missing stain", "unlike the training images"):
        assert not any(kind in one for one in found)
    # One sample beyond each limit of each channel, of 90.
    assert sum("exposure" in one for one in found) <= 3 * len(CHANNELS)
    assert sum("scale" in one for one in found) <= 2


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize(("factor", "word"), [(0.3, "darker"), (1.6, "brighter")])
def test_other_exposures_are_named(served: ServedRun, channel: str, factor: float, word: str) -> None:
    pixels = known(served)
    place = CHANNELS.index(channel)
    pixels[..., place] = (pixels[..., place] * factor).clip(0, 254).astype(np.uint8)
    (caution,) = (one for one in served.likeness.cautions(sample(pixels), None) if one.kind == "exposure")
    assert f"({channel}) is {word} than the training images" in caution.text


def test_white_pixels_are_named(served: ServedRun) -> None:
    pixels = known(served)
    pixels[:10, :, 2] = 255
    texts = [one.text for one in served.likeness.cautions(sample(pixels), None) if one.kind == "exposure"]
    assert any("the microtubules (red) is overexposed: 2" in text for text in texts)


def test_an_empty_channel_is_named(served: ServedRun) -> None:
    pixels = known(served)
    pixels[..., 1] = 7 + (np.arange(pixels[..., 1].size) % 2).reshape(pixels.shape[:2])
    (caution,) = (one for one in served.likeness.cautions(sample(pixels), None) if one.kind == "empty channel")
    assert "the nucleus (blue)" in caution.text


def test_missing_stains_are_named_with_the_models_that_never_lacked_them(served: ServedRun) -> None:
    pixels = known(served)
    pixels[..., 2:] = 0
    (caution, *others) = served.likeness.cautions(sample(pixels, CHANNELS[:2]), None)
    assert caution.kind == "missing stain"
    assert "the microtubules (red) and the endoplasmic reticulum (yellow)" in caution.text
    assert "pooled and queries never saw such images" in caution.text
    assert {"scale", "empty channel"}.isdisjoint(kinds(others))
    assert served.packed is not None
    prepared = TrainingLikeness(served.reference, served.packed.training, [])
    assert "have been trained on some images without" in prepared.cautions(sample(pixels, CHANNELS[:2]), None)[0].text


@pytest.mark.parametrize("change", ["enlarge", "blur"])
def test_larger_structures_and_blur_are_named(served: ServedRun, change: str) -> None:
    pixels = known(served)
    if change == "enlarge":
        changed = cv2.resize(pixels[12:36, 12:36], pixels.shape[:2]).astype(np.uint8)
    else:
        changed = cv2.GaussianBlur(pixels, (0, 0), 2).astype(np.uint8)
    cautions = served.likeness.cautions(sample(changed), None)
    assert ["larger or more blurred" in one.text for one in cautions if one.kind == "scale"] == [True]


@pytest.mark.parametrize(("side", "named"), [(23, True), (24, False), (96, False), (97, True)])
def test_files_of_another_size_are_named(served: ServedRun, side: int, named: bool) -> None:
    shown = replace(sample(known(served)), side=side)
    texts = [one.text for one in served.likeness.cautions(shown, None) if one.kind == "scale"]
    assert any(f"{side} pixels wide, the training images 48" in text for text in texts) == named


@pytest.mark.parametrize(("novelty", "named"), [(None, False), (0.94, False), (0.95, True), (1.0, True)])
def test_novelty_is_named_from_where_predict_names_it(served: ServedRun, novelty: float | None, named: bool) -> None:
    found = kinds(served.likeness.cautions(sample(known(served)), novelty))
    assert ("unlike the training images" in found) == named
