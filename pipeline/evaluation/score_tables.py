"""Scores with their confidence intervals: overall, by fold and by label."""

from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import average_precision_score, precision_recall_fscore_support

from pipeline.core.labels import LABELS
from pipeline.core.params import Score
from pipeline.evaluation.intervals import expected_range, f1_resamples, interval, label_intervals
from pipeline.evaluation.metrics import Bools, Floats, Thresholds, macro_f1, macro_f1_present

Groups = npt.NDArray[np.str_]


def summarise(decisions: Bools, truth: Bools, groups: Groups, settings: Score) -> dict[str, float]:
    """Macro-F1 with its confidence interval, over all labels and over the labels that occur.

    Args:
        decisions: (N, 28).
        truth: (N, 28), with at least one label.
        groups: (N,).
        settings: of the bootstrap.
    """
    resampled = f1_resamples(decisions, truth, groups, resamples=settings.resamples, seed=settings.seed)
    present = truth.any(axis=0)
    overall, over_present = macro_f1(decisions, truth), macro_f1_present(decisions, truth)
    low, high = interval(resampled.mean(axis=1), overall, settings.confidence)
    present_low, present_high = interval(resampled[:, present].mean(axis=1), over_present, settings.confidence)
    return {
        "macro_f1": overall,
        "macro_f1_low": low,
        "macro_f1_high": high,
        "macro_f1_present": over_present,
        "macro_f1_present_low": present_low,
        "macro_f1_present_high": present_high,
        "labels_present": int(present.sum()),
        "samples": len(truth),
        "groups": len(np.unique(groups)),
    }


def expect_test(decisions: Bools, truth: Bools, groups: Groups, test_samples: int, settings: Score) -> dict[str, float]:
    """The range in which macro-F1 on a test set from the same distribution is expected.

    Args:
        decisions: (N, 28), out-of-fold.
        truth: (N, 28).
        groups: (N,).
        test_samples: size of the test set, whose groups are assumed to be as large as these.
        settings: of the bootstrap.
    """
    resample = partial(f1_resamples, decisions, truth, groups, resamples=settings.resamples)
    size = max(round(test_samples / len(truth) * len(np.unique(groups))), 1)
    low, high = expected_range(
        resample(seed=settings.seed).mean(axis=1),
        resample(seed=settings.seed + 1, size=size).mean(axis=1),
        macro_f1(decisions, truth),
        settings.confidence,
    )
    return {"expected_test_low": low, "expected_test_high": high}


def by_fold(
    decisions: Bools, truth: Bools, groups: Groups, folds: npt.NDArray[np.int64], settings: Score
) -> pd.DataFrame:
    """The summary of each held-out fold, a row per fold."""
    rows = []
    for fold in np.unique(folds).tolist():
        held_out = folds == fold
        rows.append({"fold": fold} | summarise(decisions[held_out], truth[held_out], groups[held_out], settings))
    return pd.DataFrame(rows)


def by_label(
    probabilities: Floats, decisions: Bools, truth: Bools, groups: Groups, thresholds: Thresholds, settings: Score
) -> pd.DataFrame:
    """The scores of each label, a row per label in the competition's order.

    Args:
        probabilities: (N, 28).
        decisions: (N, 28).
        truth: (N, 28).
        groups: (N,).
        thresholds: (28,), those applied to the test set.
        settings: of the bootstrap.

    Returns:
        label, name, positives (samples with the label), groups (with such samples), threshold, precision, recall, F1
        with its confidence interval, and average precision (missing for a label without positives).
    """
    precision, recall, f1, positives = precision_recall_fscore_support(truth, decisions, average=None, zero_division=0)
    resampled = f1_resamples(decisions, truth, groups, resamples=settings.resamples, seed=settings.seed)
    low, high = label_intervals(resampled, decisions, truth, groups, settings.confidence).T
    ranked = [
        average_precision_score(truth[:, label], probabilities[:, label]) if truth[:, label].any() else np.nan
        for label in range(len(LABELS))
    ]
    return pd.DataFrame(
        {
            "label": range(len(LABELS)),
            "name": LABELS,
            "positives": positives,
            "groups": [len(np.unique(groups[truth[:, label]])) for label in range(len(LABELS))],
            "threshold": thresholds,
            "precision": precision,
            "recall": recall,
            "f1": f1,
            "f1_low": low,
            "f1_high": high,
            "average_precision": ranked,
        }
    )
