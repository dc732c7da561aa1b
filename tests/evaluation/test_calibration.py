"""Calibration: what scikit-learn's regression finds, and offsets that rare labels borrow."""

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from pipeline.evaluation.calibration import CALIBRATIONS, fit_calibration
from pipeline.evaluation.metrics import Bools, Floats, calibration_error

LABELS = 6


def miscalibrated(seed: int, samples: int, slope: float, offsets: Floats) -> tuple[Floats, Bools]:
    """Probabilities whose logits must be multiplied and moved to be true."""
    generator = np.random.default_rng(seed)
    logits = 2 * generator.standard_normal((samples, LABELS)) - 1
    truth = generator.random(logits.shape) < expit(slope * logits + offsets)
    return expit(logits).astype(np.float32), truth


def test_temperature_is_scikit_learns_regression_without_an_intercept() -> None:
    probabilities, truth = miscalibrated(0, 400, 0.5, np.zeros(LABELS))
    found = fit_calibration("temperature", probabilities, truth, offset_sd=1.0)
    regression = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-8)
    pairs = logit(probabilities.astype(np.float64)).reshape(-1, 1)
    assert found.slope == pytest.approx(regression.fit(pairs, truth.ravel()).coef_[0, 0], rel=1e-3)
    assert found.offsets.tolist() == [0] * LABELS


def test_platt_with_one_offset_for_all_labels_is_scikit_learns_regression() -> None:
    probabilities, truth = miscalibrated(1, 400, 1.5, np.full(LABELS, -1.0))
    found = fit_calibration("platt", probabilities, truth, offset_sd=0.0)
    pairs = logit(probabilities.astype(np.float64)).reshape(-1, 1)
    regression = LogisticRegression(C=np.inf, tol=1e-8).fit(pairs, truth.ravel())
    assert found.slope == pytest.approx(regression.coef_[0, 0], rel=1e-3)
    np.testing.assert_allclose(found.offsets, regression.intercept_[0], atol=1e-3)


def test_offsets_are_found_where_samples_are_many_and_borrowed_where_they_are_few() -> None:
    true = np.array([-1, 0, 1, -1, 0, 1.0])
    probabilities, truth = miscalibrated(2, 5000, 0.7, true)
    found = fit_calibration("platt", probabilities, truth, offset_sd=1.0)
    assert found.slope == pytest.approx(0.7, abs=0.05)
    np.testing.assert_allclose(found.offsets, true, atol=0.15)
    few = fit_calibration("platt", probabilities[:20], truth[:20], offset_sd=0.1)
    assert np.ptp(few.offsets) < 0.2


def test_calibration_lowers_the_error_on_samples_that_it_did_not_see() -> None:
    probabilities, truth = miscalibrated(3, 4000, 0.5, np.linspace(-1, 1, LABELS))
    errors = []
    for kind in CALIBRATIONS:
        fitted = fit_calibration(kind, probabilities[:2000], truth[:2000], offset_sd=1.0)
        errors.append(calibration_error(fitted.apply(probabilities[2000:]), truth[2000:]))
    none, temperature, platt = errors
    assert none == pytest.approx(calibration_error(probabilities[2000:], truth[2000:]), abs=1e-4)
    assert temperature < none
    assert platt < 0.03


def test_separable_samples_and_certain_probabilities_have_a_calibration() -> None:
    truth = np.random.default_rng(4).random((40, LABELS)) < 0.3
    for kind in CALIBRATIONS:
        calibrated = fit_calibration(kind, truth.astype(np.float32), truth, offset_sd=0.5).apply(
            truth.astype(np.float32)
        )
        np.testing.assert_array_equal(calibrated > 0.5, truth, err_msg=kind)


def test_permuting_the_rows_changes_no_calibration() -> None:
    probabilities, truth = miscalibrated(5, 100, 0.7, np.zeros(LABELS))
    order = np.random.default_rng(5).permutation(100)
    before = fit_calibration("platt", probabilities, truth, offset_sd=0.5)
    after = fit_calibration("platt", probabilities[order], truth[order], offset_sd=0.5)
    assert after.slope == pytest.approx(before.slope, rel=1e-4)
    np.testing.assert_allclose(after.offsets, before.offsets, atol=1e-4)
