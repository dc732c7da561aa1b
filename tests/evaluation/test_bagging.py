"""Bagged thresholds: as their definition says, and less noisy than the best threshold of each label."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.metrics import f1_score

from pipeline.evaluation import bagging
from pipeline.evaluation.bagging import OFFSETS, bagged_thresholds, best_offset, choose_offsets
from pipeline.evaluation.metrics import Bools, Floats, Thresholds, f1_by_label, macro_f1
from pipeline.evaluation.thresholds import best_threshold, expected_f1


def calibrated(generator: np.random.Generator, samples: int, centres: list[float]) -> tuple[Floats, Bools]:
    """Calibrated probabilities, one label per centre (in logits), and truth drawn from them."""
    probabilities = expit(generator.normal(centres, 2.0, (samples, len(centres))))
    return probabilities.astype(np.float32), generator.random(probabilities.shape) < probabilities


def resampled_by_definition(probabilities: Floats, truth: Bools, shrinkage: float) -> Thresholds:
    """The thresholds of one resample, (L,) logits, with scikit-learn's F1 at every offset."""
    expected = logit(expected_f1(probabilities) / 2)
    scores = np.array(
        [
            [f1_score(own, logit(scored) >= optimum + offset, zero_division=0) for offset in OFFSETS]
            for own, scored, optimum in zip(truth.T, probabilities.T.astype(np.float64), expected, strict=True)
        ]
    )
    positives = truth.sum(axis=0)
    best = [OFFSETS[row > row.max() - 1e-9].mean() for row in [*scores, scores.mean(axis=0)]]
    return np.array(
        [
            optimum + (count * own + shrinkage * best[-1]) / (count + shrinkage)
            for optimum, own, count in zip(expected, best, positives, strict=False)
        ]
    )


@given(seed=st.integers(0, 2**32 - 1), shrinkage=st.sampled_from([0.5, 5.0]))
@settings(max_examples=3, deadline=None)
def test_thresholds_are_the_mean_of_those_of_resamples(seed: int, shrinkage: float) -> None:
    probabilities, truth = calibrated(np.random.default_rng(seed), 40, [-1.0, -4.0])
    order = np.lexsort((*truth.T, *probabilities.T))
    generator = np.random.default_rng(0)
    logits = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bagging, "RESAMPLES", 3)
        found = bagged_thresholds(probabilities, truth, shrinkage)
    for _ in range(3):
        drawn = order[generator.integers(40, size=40)]
        logits.append(resampled_by_definition(probabilities[drawn], truth[drawn], shrinkage))
    np.testing.assert_allclose(logit(found), np.mean(logits, axis=0), rtol=0, atol=1e-6)


def test_offsets_shrink_towards_the_shared_one_by_the_positives() -> None:
    f1 = np.zeros((3, len(OFFSETS)))
    f1[0, 140], f1[1, 160], f1[2, 100:111] = 0.5, 0.9, 0.2
    # The second label has the highest peak, so it decides the mean.
    shared, own = OFFSETS[160], np.array([OFFSETS[140], OFFSETS[160], OFFSETS[105]])
    assert [best_offset(row) for row in f1] == pytest.approx(own), "of several, the middle"
    assert choose_offsets(f1, np.array([5, 5, 5]), 5.0) == pytest.approx((own + shared) / 2)
    assert choose_offsets(f1, np.array([5, 5, 0]), 0.0) == pytest.approx([own[0], own[1], shared])
    assert choose_offsets(f1, np.array([5, 5, 5]), 1e12) == pytest.approx([shared] * 3)


@given(seed=st.integers(0, 2**32 - 1), shrinkage=st.sampled_from([0.0, 5.0]))
@settings(max_examples=10, deadline=None)
def test_every_threshold_is_a_probability(seed: int, shrinkage: float) -> None:
    generator = np.random.default_rng(seed)
    probabilities, truth = calibrated(generator, 12, [0.0, -9.0, 9.0])
    probabilities[:, 0] = generator.integers(0, 2, 12)
    truth[:, 1] = False
    chosen = bagged_thresholds(probabilities, truth, shrinkage)
    assert ((chosen > 0) & (chosen < 1)).all()


def test_calibrated_probabilities_get_the_best_thresholds() -> None:
    probabilities, truth = calibrated(np.random.default_rng(0), 50_000, [-1.0, -3.0, -5.0])
    highest = [
        f1_by_label(probabilities >= best_threshold(probabilities[:, [k]], truth[:, [k]]), truth)[k] for k in range(3)
    ]
    chosen = bagged_thresholds(probabilities, truth, 5.0)
    assert f1_by_label(probabilities >= chosen, truth) == pytest.approx(highest, abs=5e-3)
    # Logits that are all too high by the same amount are corrected by the offset that labels share.
    inflated = expit(logit(probabilities.astype(np.float64)) + 1.5)
    chosen = bagged_thresholds(inflated, truth, 1e12)
    assert f1_by_label(inflated >= chosen, truth) == pytest.approx(highest, abs=0.02)


def test_they_score_higher_on_new_samples_than_the_best_thresholds_of_the_old_ones() -> None:
    generator = np.random.default_rng(0)
    centres = [-1.0, -3.0, -3.0, -5.0, -5.0, -5.0]
    new, new_truth = calibrated(generator, 20_000, centres)
    gains = []
    for _ in range(20):
        old, truth = calibrated(generator, 150, centres)
        best = np.array([best_threshold(old[:, [label]], truth[:, [label]]) for label in range(len(centres))])
        bagged = bagged_thresholds(old, truth, 5.0)
        gains.append(macro_f1(new >= bagged, new_truth) - macro_f1(new >= best, new_truth))
    assert np.mean(gains) > 3 * np.std(gains) / np.sqrt(len(gains))


def test_a_label_with_low_probabilities_gets_a_threshold_among_them() -> None:
    probabilities, truth = calibrated(np.random.default_rng(1), 500, [-1.0] * 6)
    probabilities = np.hstack([probabilities, probabilities[:, :1] / 1000])
    truth = np.hstack([truth, truth[:, :1]])
    assert best_threshold(probabilities, truth) > probabilities[:, -1].max()
    chosen = bagged_thresholds(probabilities, truth, 1e12)
    assert f1_by_label(probabilities >= chosen, truth)[-1] > 0.5
