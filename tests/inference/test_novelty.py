"""Novelty: the false alarms are as many as asked for, and samples from elsewhere are found by either distance."""

from itertools import combinations

import numpy as np
import pytest

from pipeline.core.labels import CHANNELS
from pipeline.evaluation.reference_file import Reference
from pipeline.inference.channel_statistics import STATISTICS, with_channels_swapped
from pipeline.inference.novelty import FALSE_ALARMS, NoveltyDetector, is_novel

SAMPLES = 900
F = len(STATISTICS)
SCALES = np.linspace(0.5, 2, F)
"""Standard deviations of the statistics."""


def draw(generator: np.random.Generator, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings around three centres, and correlated statistics."""
    centres = 4 * np.eye(6)[:3]
    vectors = centres[generator.integers(0, 3, samples)] + generator.standard_normal((samples, 6))
    common = generator.standard_normal((samples, 1))
    statistics = 3 * np.arange(F) + common + SCALES * generator.standard_normal((samples, F))
    return vectors.astype(np.float32), statistics


@pytest.fixture(scope="module")
def detector() -> NoveltyDetector:
    vectors, statistics = draw(np.random.default_rng(0), SAMPLES)
    blank = np.array(["0"] * SAMPLES)
    folds = np.arange(SAMPLES) % 3
    places = np.zeros((SAMPLES, 2), np.float32)
    return NoveltyDetector(Reference("one", 1, "", blank, blank, folds, vectors, statistics, places))


def test_as_many_samples_like_the_held_out_ones_are_flagged_as_asked_for(detector: NoveltyDetector) -> None:
    flagged = is_novel(detector.novelty(*draw(np.random.default_rng(1), 4000))).mean()
    # 300 held-out samples: the rate varies by 0.013 with their choice, and by 0.003 with these 4,000.
    assert flagged == pytest.approx(FALSE_ALARMS, abs=0.04)
    assert flagged > 0


def test_novelty_is_the_share_of_held_out_samples_that_are_less_novel(detector: NoveltyDetector) -> None:
    vectors, statistics = draw(np.random.default_rng(0), SAMPLES)
    held_out = np.arange(SAMPLES) % 3 == 1
    own = detector.novelty(vectors[held_out], statistics[held_out])
    np.testing.assert_allclose(np.sort(own), np.arange(300) / 301, atol=1e-9)
    assert is_novel(own).sum() == 14  # 5 % of 301, the sample in question included


def test_each_distance_alone_finds_what_is_unlike(detector: NoveltyDetector) -> None:
    vectors, statistics = draw(np.random.default_rng(2), 50)
    assert is_novel(detector.novelty(-vectors, statistics)).mean() > 0.9
    centre = 3.0 * np.arange(F)
    assert is_novel(detector.novelty(vectors, centre + 2 * (statistics - centre))).mean() > 0.9
    far = detector.novelty(vectors, statistics * np.tile([1, -1], F // 2))
    np.testing.assert_allclose(far, 300 / 301)


@pytest.mark.parametrize("pair", list(combinations(CHANNELS, 2)))
def test_swapped_channels_are_found_though_their_statistics_are_usual(pair: tuple[str, str]) -> None:
    vectors, statistics = draw(np.random.default_rng(4), SAMPLES)
    # Ten times as wide, and closer: each statistic of one channel would be a usual one of another.
    wide = 10 * (statistics - 3.0 * np.arange(F)) + 6.0 * np.arange(F)
    blank, places = np.array(["0"] * SAMPLES), np.zeros((SAMPLES, 2), np.float32)
    folds = np.arange(SAMPLES) % 3
    known = NoveltyDetector(Reference("one", 1, "", blank, blank, folds, vectors, wide, places))
    vectors, wide = vectors[folds == 1], wide[folds == 1]
    usual = known.distances(vectors, wide) > known.units
    swapped = known.distances(vectors, with_channels_swapped(wide, *pair)) > known.units
    np.testing.assert_allclose(usual.mean(axis=0), FALSE_ALARMS)
    assert swapped[:, 2].mean() > 0.5
    assert swapped[:, 2].mean() > swapped[:, 1].mean() or swapped[:, 1].all()


def test_the_statistics_are_compared_by_mahalanobis_distance(detector: NoveltyDetector) -> None:
    _, known = draw(np.random.default_rng(0), SAMPLES)
    known = known[np.arange(SAMPLES) % 3 != 1]
    vectors, statistics = draw(np.random.default_rng(3), 20)
    shift = statistics - known.mean(axis=0)
    expected = np.sqrt(np.einsum("ni,ij,nj->n", shift, np.linalg.inv(np.cov(known.T)), shift))
    np.testing.assert_allclose(detector.distances(vectors, statistics)[:, 1], expected, rtol=0.1)
