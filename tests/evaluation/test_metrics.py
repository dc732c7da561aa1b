"""Scores against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, log_loss

from pipeline.core.labels import LABELS
from pipeline.evaluation.metrics import (
    Bools,
    binary_cross_entropy,
    calibration_error,
    f1_by_label,
    macro_f1,
    macro_f1_present,
)


def decided_samples(seed: int, samples: int = 80) -> tuple[Bools, Bools]:
    """Decisions that are right more often than not, on labels of which some are absent and some never given."""
    generator = np.random.default_rng(seed)
    truth = generator.random((samples, len(LABELS))) < generator.choice([0, 0.05, 0.4], len(LABELS))
    return truth ^ (generator.random(truth.shape) < generator.choice([0, 0.1], len(LABELS))), truth


@given(seed=st.integers(0, 2**32 - 1), samples=st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_f1_is_scikit_learns(seed: int, samples: int) -> None:
    decisions, truth = decided_samples(seed, samples)
    by_sklearn = f1_score(truth, decisions, average=None, zero_division=0)
    np.testing.assert_allclose(f1_by_label(decisions, truth), by_sklearn)
    assert macro_f1(decisions, truth) == pytest.approx(f1_score(truth, decisions, average="macro", zero_division=0))
    present = np.flatnonzero(truth.any(axis=0))
    expected = f1_score(truth, decisions, average="macro", zero_division=0, labels=present) if len(present) else 0
    assert macro_f1_present(decisions, truth) == pytest.approx(expected)


def test_cross_entropy_is_scikit_learns() -> None:
    generator = np.random.default_rng(0)
    truth = generator.random((50, 28)) < 0.2
    probabilities = generator.random((50, 28))
    assert binary_cross_entropy(probabilities, truth) == pytest.approx(log_loss(truth.ravel(), probabilities.ravel()))


def test_cross_entropy_of_a_certain_mistake_is_large_and_finite() -> None:
    certain = np.array([[1, 0]], dtype=np.float32)
    assert binary_cross_entropy(certain, certain == 0) == pytest.approx(-np.log(1e-7), rel=1e-6)
    assert binary_cross_entropy(certain, certain == 1) == pytest.approx(1e-7, rel=1e-2)


def test_calibration_of_a_hand_worked_case() -> None:
    # Bins by fifteenths: 0.64, 0.65 and 0.66 share the one up to 0.67, their mean is 0.65 and two are positive;
    # 0.59, negative, is in the one before, and 1, negative, in the last.
    probabilities = np.array([[0.64, 0.65, 0.66, 0.59, 1.0]])
    truth = np.array([[True, True, False, False, False]])
    assert calibration_error(probabilities, truth) == pytest.approx((3 * (2 / 3 - 0.65) + 0.59 + 1) / 5)


def test_calibrated_probabilities_have_little_calibration_error() -> None:
    generator = np.random.default_rng(0)
    probabilities = generator.random((5000, 28))
    truth = generator.random(probabilities.shape) < probabilities
    assert calibration_error(probabilities, truth) < 0.01
    assert calibration_error(probabilities**2, truth) > 0.1
