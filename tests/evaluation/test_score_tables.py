"""The tables of scores against scikit-learn, and the range expected of a test score."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from pipeline.core.params import Score
from pipeline.evaluation.intervals import f1_resamples
from pipeline.evaluation.metrics import f1_by_label, macro_f1
from pipeline.evaluation.score_tables import by_fold, by_label, expect_test, summarise
from tests.evaluation.test_metrics import decided_samples


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
