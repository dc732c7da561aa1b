"""The share of right labels near a probability, counted again by hand."""

import numpy as np
import pytest

from pipeline.app.measured_shares import PAIRS, MeasuredShares


@pytest.mark.parametrize("probability", [0.0, 0.013, 0.2, 0.5, 0.9, 1.0])
def test_it_is_that_of_the_nearest_ranks(probability: float) -> None:
    random = np.random.default_rng(0)
    probabilities = random.random((120, 28)).astype(np.float32) ** 2
    truth = random.random((120, 28)) < probabilities
    ranked = sorted(zip(probabilities.ravel().tolist(), truth.ravel().tolist(), strict=True))
    below = sum(value < probability for value, _ in ranked)
    start = min(max(below - PAIRS // 2, 0), len(ranked) - PAIRS)
    expected = np.mean([right for _, right in ranked[start : start + PAIRS]])
    found = MeasuredShares(probabilities, truth).share(probability)
    assert found == pytest.approx(expected)
    assert found == pytest.approx(probability, abs=0.12), "the truth was drawn with these probabilities"


def test_few_samples_are_all_counted() -> None:
    truth = np.zeros((2, 28), bool)
    truth[0, :14] = True
    assert MeasuredShares(np.full((2, 28), 0.5, np.float32), truth).share(0.3) == 0.25
