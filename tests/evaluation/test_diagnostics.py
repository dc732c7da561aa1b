"""Curves, calibration, confusions, examples and baselines against scikit-learn and plain counting."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import f1_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from pipeline.core.labels import LABELS
from pipeline.evaluation.diagnostics import (
    ERRORS,
    POINTS,
    baseline_macro_f1,
    choose_examples,
    confusions,
    copied_macro_f1,
    gravest_errors,
    precision_recall,
    reliability,
)
from pipeline.evaluation.metrics import CALIBRATION_BINS, calibration_error, macro_f1
from tests.evaluation.test_metrics import decided_samples

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


EXAMPLE_PROBABILITIES = np.array([[0.9, 0.1], [0.4, 0.3], [0.6, 0.8], [0.2, 0.7]])
EXAMPLE_TRUTH = np.array([[True, False], [True, True], [True, False], [False, False]])
EXAMPLE_DECISIONS = EXAMPLE_PROBABILITIES >= 0.5
EXAMPLE_GROUPS = np.array(["a", "b", "c", "c"])


def test_the_best_and_the_worst_of_each_label_and_the_gravest_errors() -> None:
    table = choose_examples(EXAMPLE_PROBABILITIES, EXAMPLE_DECISIONS, EXAMPLE_TRUTH, EXAMPLE_GROUPS)
    assert list(table.itertuples(index=False, name=None)) == [
        (0, 0, "best"),
        (1, 0, "worst"),
        (1, 1, "best"),  # the label's only sample
        (2, 1, "error"),  # a false alarm at .8
        (1, 1, "error"),  # missed at .3, graver than label 0 at .4; sample 3 is of the same group as sample 2
    ]


@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_errors_are_those_of_a_plain_search(seed: int, samples: int) -> None:
    generator = np.random.default_rng(seed)
    probabilities = generator.random((samples, 5)).round(1)
    decisions, truth = generator.random((2, samples, 5)) < 0.5
    groups = generator.integers(0, 8, samples).astype(str)
    wrong = {
        position: max(
            (abs(truth[position, label] - probabilities[position, label]), -label)
            for label in np.flatnonzero(decisions[position] != truth[position]).tolist()
        )
        for position in range(samples)
        if (decisions[position] != truth[position]).any()
    }
    expected: dict[str, tuple[int, int]] = {}
    for position in sorted(wrong, key=lambda position: (-wrong[position][0], position)):
        expected.setdefault(groups[position], (position, -wrong[position][1]))
    assert gravest_errors(probabilities, decisions, truth, groups) == list(expected.values())[:ERRORS]


def test_a_label_without_samples_has_no_examples() -> None:
    table = choose_examples(
        EXAMPLE_PROBABILITIES, np.zeros_like(EXAMPLE_TRUTH), np.zeros_like(EXAMPLE_TRUTH), EXAMPLE_GROUPS
    )
    assert table.empty
    assert list(table.columns) == ["position", "label", "kind"]


def test_baselines_are_what_their_names_say() -> None:
    _, truth = decided_samples(1, 60)
    truth[:30, 5], truth[30:, 5], truth[:30, 6], truth[30:, 6] = True, False, False, True
    folds = np.repeat([0, 1], 30)
    baselines = baseline_macro_f1(truth, folds)
    # Label 5 is the most frequent one of fold 0, so fold 1 is given it, and has none.
    assert baselines["majority"] == 0
    assert baselines["all_positive"] == pytest.approx(f1_score(truth, truth | True, average="macro", zero_division=0))
    generator = np.random.default_rng(0)
    drawn = [macro_f1(generator.permuted(truth, axis=0), truth) for _ in range(2000)]
    assert baselines["prior"] == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / np.sqrt(len(drawn)))


def test_copying_the_nearest_sample_is_one_nearest_neighbour() -> None:
    generator = np.random.default_rng(0)
    _, truth = decided_samples(4, 60)
    brightness, folds = generator.random((60, 5)) * [1, 10, 100, 1, 0], generator.integers(3, size=60)
    scaled = StandardScaler().fit_transform(brightness)
    copied = np.zeros_like(truth)
    for fold in range(3):
        rest = folds != fold
        copied[~rest] = KNeighborsClassifier(1).fit(scaled[rest], truth[rest].astype(int)).predict(scaled[~rest])
    assert copied_macro_f1(brightness, truth, folds) == pytest.approx(macro_f1(copied, truth))


def test_what_a_split_group_gives_away_is_memory() -> None:
    generator = np.random.default_rng(0)
    truth = np.repeat(generator.random((40, 28)) < 0.3, 3, axis=0)
    brightness = np.repeat(generator.random((40, 8)), 3, axis=0) + 0.01 * generator.random((120, 8))
    whole, split = np.repeat(np.arange(40) % 3, 3), np.arange(120) % 3
    assert copied_macro_f1(brightness, truth, split) > 0.99
    assert copied_macro_f1(brightness, truth, whole) < 0.45
