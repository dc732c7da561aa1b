"""Confidence intervals against brute force and closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from pipeline.evaluation.intervals import BATCH, expected_range, f1_resamples, interval, label_intervals
from pipeline.evaluation.metrics import f1_by_label
from tests.evaluation.test_metrics import decided_samples


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
