"""Curves, calibration and confusions against scikit-learn and plain counting."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from pipeline.core.labels import LABELS
from pipeline.evaluation.diagnostics import POINTS, confusions, precision_recall, reliability
from pipeline.evaluation.metrics import CALIBRATION_BINS, calibration_error

GENERATOR = np.random.default_rng(0)
TRUTH = GENERATOR.random((300, 28)) < np.linspace(0, 0.4, 28)
PROBABILITIES = (0.7 * GENERATOR.random((300, 28)) + 0.3 * TRUTH).astype(np.float32)


def test_each_point_of_a_curve_is_what_its_threshold_gives() -> None:
    table = precision_recall(PROBABILITIES, TRUTH)
    assert table["label"].unique().tolist() == np.flatnonzero(TRUTH.any(axis=0)).tolist()
    assert table.groupby("label").size().between(2, POINTS).all()
    for row in table.sample(60, random_state=0).to_dict("records"):
        decided = PROBABILITIES[:, row["label"]] >= row["threshold"]
        hits = (decided & TRUTH[:, row["label"]]).sum()
        assert row["name"] == LABELS[row["label"]]
        assert row["precision"] == pytest.approx(hits / decided.sum())
        assert row["recall"] == pytest.approx(hits / TRUTH[:, row["label"]].sum())


def test_a_curve_spans_all_recalls() -> None:
    recalls = precision_recall(PROBABILITIES, TRUTH).groupby("label")["recall"]
    assert (recalls.max() == 1).all()
    assert (recalls.min() <= 1 / TRUTH.sum(axis=0)[TRUTH.any(axis=0)]).all()


def test_bins_are_scikit_learns_and_add_up_to_the_calibration_error() -> None:
    table = reliability(PROBABILITIES, TRUTH)
    assert len(table) == CALIBRATION_BINS
    filled = table[table["n"] > 0]
    observed, confidence = calibration_curve(TRUTH.ravel(), PROBABILITIES.ravel(), n_bins=CALIBRATION_BINS)
    np.testing.assert_allclose(filled["observed"], observed)
    np.testing.assert_allclose(filled["confidence"], confidence)
    error = ((filled["confidence"] - filled["observed"]).abs() * filled["n"]).sum() / table["n"].sum()
    assert error == pytest.approx(calibration_error(PROBABILITIES, TRUTH))


@given(st.integers(0, 2**32 - 1))
def test_confusions_are_counted_pair_by_pair(seed: int) -> None:
    decisions, truth = np.random.default_rng(seed).random((2, 12, 5)) < 0.4
    expected: dict[tuple[int, int], int] = {}
    for given_labels, true_labels in zip(decisions, truth, strict=True):
        for missed in np.flatnonzero(true_labels & ~given_labels).tolist():
            for wrong in np.flatnonzero(given_labels & ~true_labels).tolist():
                expected[missed, wrong] = expected.get((missed, wrong), 0) + 1
    table = confusions(decisions, truth)
    pairs = zip(table["label_true"], table["label_predicted"], strict=True)
    assert dict(zip(pairs, table["count"], strict=True)) == expected
    assert table["count"].is_monotonic_decreasing
