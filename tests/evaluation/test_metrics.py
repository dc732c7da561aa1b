"""Scores against scikit-learn, and intervals against brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, f1_score, log_loss
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from pipeline.core.labels import LABELS
from pipeline.core.params import Score
from pipeline.evaluation.diagnostics import baseline_macro_f1, copied_macro_f1
from pipeline.evaluation.intervals import BATCH, expected_range, f1_resamples, interval, label_intervals
from pipeline.evaluation.metrics import (
    Bools,
    binary_cross_entropy,
    calibration_error,
    f1_by_label,
    macro_f1,
    macro_f1_present,
)
from pipeline.evaluation.score_tables import by_fold, by_label, expect_test, summarise


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


def test_the_score_is_not_that_of_the_last_label() -> None:
    decisions, truth = decided_samples(0)
    assert macro_f1(decisions, truth) != pytest.approx(f1_score(truth[:, 27], decisions[:, 27], zero_division=0))


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


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_resamples_equal_those_drawn_row_by_row(seed: int) -> None:
    decisions, truth = decided_samples(seed, 30)
    groups = np.random.default_rng(seed).integers(9, size=30).astype(np.str_)
    names = np.unique(groups)
    found = f1_resamples(decisions, truth, groups, resamples=BATCH + 3, seed=seed)
    assert found.shape == (BATCH + 3, 28)
    generator = np.random.default_rng(seed)
    drawn = generator.integers(len(names), size=(BATCH, len(names)))
    for number in (0, 1, BATCH - 1):
        rows = np.concatenate([np.flatnonzero(groups == names[group]) for group in drawn[number]])
        np.testing.assert_allclose(found[number], f1_by_label(decisions[rows], truth[rows]), atol=1e-12)


def test_rows_of_one_group_widen_the_interval() -> None:
    decisions, truth = decided_samples(2, 60)
    copies, true_copies = np.repeat(decisions, 8, axis=0), np.repeat(truth, 8, axis=0)
    groups = np.repeat(np.arange(60), 8).astype(np.str_)
    wide = f1_resamples(copies, true_copies, groups, resamples=400, seed=0).mean(axis=1).std()
    narrow = f1_resamples(copies, true_copies, np.arange(480).astype(np.str_), resamples=400, seed=0).mean(axis=1).std()
    assert wide == pytest.approx(
        f1_resamples(decisions, truth, np.arange(60).astype(np.str_), resamples=400, seed=0).mean(axis=1).std(), rel=0.2
    )
    assert narrow < wide / 2


def test_the_interval_of_an_unbiased_figure_is_the_central_share() -> None:
    assert interval(np.linspace(0, 1, 1001), 0.5, 0.9) == pytest.approx((0.05, 0.95), abs=1e-6)


def test_the_interval_moves_against_the_bias() -> None:
    # The resamples lie 0.1 below the figure on average, which itself lies as far below the truth.
    assert interval(np.linspace(0, 0.5, 1001), 0.35, 0.9) == pytest.approx((0.225, 0.675), abs=1e-6)


def test_no_interval_leaves_the_range_of_its_figure() -> None:
    assert interval(np.linspace(0, 1, 1001), 0.9, 0.9) == pytest.approx((0.85, 1), abs=1e-6)
    assert interval(np.linspace(-1, 0, 1001), -0.9, 0.9, least=-1) == pytest.approx((-1, -0.85), abs=1e-6)


def test_labels_with_nothing_but_misses_or_hits_have_the_exact_ends_of_a_binomial_share() -> None:
    groups = np.repeat(np.arange(10), 3).astype(np.str_)
    truth, decisions = np.zeros((2, 30, 28), dtype=np.bool_)
    truth[:12, :2] = True  # four groups have labels 0 and 1; 0 is always found and 1 never
    decisions[:12, 0] = True
    resampled = f1_resamples(decisions, truth, groups, resamples=200, seed=0)
    ends = label_intervals(resampled, decisions, truth, groups, 0.95)
    hits = binomtest(4, 4).proportion_ci(0.95, "exact").low
    misses = binomtest(0, 4).proportion_ci(0.95, "exact").high
    assert ends[0] == pytest.approx((2 * hits / (1 + hits), 1))
    assert ends[1] == pytest.approx((0, 2 * misses / (1 + misses)))
    assert ends[2].tolist() == [0, 1]


def test_the_expected_range_is_that_of_the_difference_of_two_means() -> None:
    generator = np.random.default_rng(0)
    own, future = generator.normal(0.5, 0.03, 20_000), generator.normal(0.5, 0.04, 20_000)
    assert expected_range(own, future, 0.5, 0.95) == pytest.approx((0.5 - 1.96 * 0.05, 0.5 + 1.96 * 0.05), abs=0.003)


def test_smaller_resamples_scatter_by_the_root_of_their_size() -> None:
    generator = np.random.default_rng(5)
    truth = generator.random((400, 28)) < 0.4
    decisions = truth ^ (generator.random(truth.shape) < 0.2)
    groups = np.arange(400).astype(np.str_)
    own, quarter = (
        f1_resamples(decisions, truth, groups, resamples=500, seed=0, size=size).mean(axis=1).std()
        for size in (None, 100)
    )
    assert quarter == pytest.approx(2 * own, rel=0.15)
    # As expected of 133 new samples: a variance of three times that of the score, and once that of the score itself.
    settings = Score(resamples=500, confidence=0.95, seed=0)
    expected = expect_test(decisions, truth, groups, 133, settings)
    width = expected["expected_test_high"] - expected["expected_test_low"]
    assert width == pytest.approx(2 * 1.96 * 2 * own, rel=0.15)


def test_tables_hold_scikit_learns_figures() -> None:
    decisions, truth = decided_samples(3, 90)
    probabilities = np.random.default_rng(3).random(truth.shape)
    groups = (np.arange(90) // 2).astype(np.str_)
    settings = Score(resamples=50, confidence=0.9, seed=0)
    summary = summarise(decisions, truth, groups, settings)
    assert summary["macro_f1"] == macro_f1(decisions, truth)
    assert summary["macro_f1_low"] <= summary["macro_f1"] <= summary["macro_f1_high"]
    assert summary["macro_f1_present_low"] <= summary["macro_f1_present"] <= summary["macro_f1_present_high"]
    assert (summary["samples"], summary["groups"], summary["labels_present"]) == (90, 45, truth.any(axis=0).sum())

    table = by_label(probabilities, decisions, truth, groups, np.linspace(0, 1, 28), settings)
    np.testing.assert_allclose(table["f1"], f1_by_label(decisions, truth))
    assert table["f1"].between(table["f1_low"], table["f1_high"]).mean() > 0.9
    common, absent = truth.sum(axis=0).argmax(), truth.sum(axis=0).argmin()
    expected = average_precision_score(truth[:, common], probabilities[:, common])
    assert table.loc[common, "average_precision"] == pytest.approx(expected)
    assert table.loc[common, "groups"] == len({row // 2 for row in np.flatnonzero(truth[:, common])})
    assert np.isnan(table["average_precision"].iloc[absent])

    folds = np.repeat([0, 4], 45)
    per_fold = by_fold(decisions, truth, groups, folds, settings)
    assert per_fold["fold"].tolist() == [0, 4]
    assert per_fold["macro_f1"].tolist() == [macro_f1(decisions[:45], truth[:45]), macro_f1(decisions[45:], truth[45:])]
