"""Average precision in resamples: scikit-learn's, with sample weights, ties and labels without positives."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from pipeline.evaluation.ranking import average_precision, group_weights, mean_average_precision


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.sampled_from([2, 5, 1000]))
def test_it_is_scikit_learns_with_weights_and_ties(seed: int, samples: int, levels: int) -> None:
    generator = np.random.default_rng(seed)
    probabilities = (generator.integers(0, levels, (samples, 3)) / levels).astype(np.float32)
    truth = generator.random((samples, 3)) < 0.4
    weights = generator.integers(0, 3, (4, samples)).astype(np.float64)
    found = average_precision(probabilities, truth, weights)
    for row, drawn in enumerate(weights):
        for label in range(3):
            if not drawn[truth[:, label]].any():
                assert np.isnan(found[row, label])
            else:
                kept = drawn > 0
                expected = average_precision_score(
                    truth[kept, label], probabilities[kept, label], sample_weight=drawn[kept]
                )
                assert found[row, label] == pytest.approx(expected)


def test_a_weight_is_a_repetition() -> None:
    generator = np.random.default_rng(0)
    probabilities, truth = generator.random((20, 4)), generator.random((20, 4)) < 0.3
    weights = generator.integers(0, 4, (1, 20)).astype(np.float64)
    order = np.repeat(np.arange(20), weights[0].astype(int))
    repeated = average_precision(probabilities[order], truth[order], np.ones((1, len(order))))
    np.testing.assert_allclose(average_precision(probabilities, truth, weights), repeated)


def test_the_mean_is_over_labels_with_positives() -> None:
    truth = np.array([[True, False], [False, False]])
    probabilities = np.array([[0.2, 0.9], [0.8, 0.1]])
    assert mean_average_precision(probabilities, truth, np.ones((1, 2))).tolist() == [0.5]
    with pytest.raises(ValueError, match="no sample has a label"):
        mean_average_precision(probabilities, np.zeros_like(truth), np.ones((1, 2)))


def test_groups_are_drawn_whole_and_as_often_as_there_are() -> None:
    groups = np.array(["b", "a", "b", "c", "a", "b"])
    drawn = np.concatenate(list(group_weights(groups, resamples=250, seed=1)))
    assert drawn.shape == (250, 6)
    for group in "abc":
        own = drawn[:, groups == group]
        assert (own == own[:, :1]).all()
    assert (drawn[:, [1, 0, 3]].sum(axis=1) == 3).all()
    assert drawn.mean() == pytest.approx(1, abs=0.05)
