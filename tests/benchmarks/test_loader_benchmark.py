"""The loader benchmark compares the same pixels, and its ratios are of throughput."""

from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import loader
from pipeline.core.labels import CHANNELS
from pipeline.core.params import load


def test_png_files_and_packed_array_have_the_same_pixels(tmp_path: Path) -> None:
    settings = load().sample.model_copy(update={"size": 64, "train": 2, "test": 1})
    index, images = loader.simulated(settings, tmp_path)
    assert images.shape == (3, 64, 64, 4)
    for id_, image in zip(index["id"], images, strict=True):
        for number, channel in enumerate(CHANNELS):
            decoded = cv2.imread(str(tmp_path / f"{id_}_{channel}.png"), cv2.IMREAD_UNCHANGED)
            np.testing.assert_array_equal(np.asarray(decoded), image[..., number])


def test_ratios_are_of_throughput_per_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed = {"png": 2.0, "packed": 4.0, "augmented": 8.0, "copy": 1.0, "one": 3.0, "two": 2.0}

    def measure(cases: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
        for run in cases.values():
            run()
        return {name: [fixed[name]] * rounds for name in cases}

    monkeypatch.setattr(loader, "measure", measure)
    # Of 20, 20, 1 and 2 passes; see PASSES.
    assert loader.main(samples=16, size=64, rounds=1) == {
        "packed_over_png": (20 / 4) / (1 / 2),
        "copy_over_packed": 4,
        "augmented_over_png": (2 / 8) / (1 / 2),
        "two_workers_over_one": 1.5,
    }
