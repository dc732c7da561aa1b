"""Metrics of decisions (F1) and of probabilities (cross-entropy, calibration error).

Also macro-F1 without a decision rule, for learning curves: each label is predicted as often as it occurs in training.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]
Thresholds = npt.NDArray[np.float64]

CALIBRATION_BINS = 15
"""Of equal width, over 0..1."""


def f1_ratio(true_positives: npt.NDArray[Any], predicted_plus_true: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """F1 from counts: twice the true positives over predicted plus true labels; 0 where both are 0."""
    ratio = np.zeros(np.shape(true_positives))
    np.divide(2 * true_positives, predicted_plus_true, out=ratio, where=predicted_plus_true > 0)
    return ratio


def f1_by_label(decisions: Bools, truth: Bools) -> npt.NDArray[np.float64]:
    """F1 of each label, (28,), from decisions and true labels (N, 28); 0 for a label neither predicted nor true."""
    return f1_ratio((decisions & truth).sum(axis=0), decisions.sum(axis=0) + truth.sum(axis=0))


def macro_f1(decisions: Bools, truth: Bools) -> float:
    """Mean F1 over all labels, the competition's metric; a label that does not occur counts as 0."""
    return float(f1_by_label(decisions, truth).mean())


def macro_f1_present(decisions: Bools, truth: Bools) -> float:
    """Mean F1 over the labels that at least one sample has; 0 if there is none."""
    present = truth.any(axis=0)
    return float(f1_by_label(decisions, truth)[present].mean()) if present.any() else 0.0


def binary_cross_entropy(probabilities: Floats, truth: Bools) -> float:
    """Mean over samples and labels, in nats; probabilities are clipped to 1e-7 from 0 and 1."""
    clipped = np.clip(probabilities.astype(np.float64), 1e-7, 1 - 1e-7)
    return float(-np.log(np.where(truth, clipped, 1 - clipped)).mean())


def calibration_error(probabilities: Floats, truth: Bools) -> float:
    """Expected calibration error over all (sample, label) pairs, in 15 bins of equal width.

    The absolute difference between mean probability and share of positives in a bin, averaged over the pairs (Naeini et
    al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015).
    """
    flat = probabilities.astype(np.float64).ravel()
    bins = np.minimum((flat * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    excess = np.bincount(bins, weights=flat - truth.ravel())
    return float(np.abs(excess).sum() / flat.size)


def match_counts(probabilities: Floats, proportions: Floats) -> Thresholds:
    """Thresholds, (28,), at which each label is predicted for a given proportion of these samples.

    The method of the 1st, 3rd and 4th teams of the competition. Samples with tied probabilities are not separated;
    where the cut falls among ties, the label is predicted for more samples.

    Args:
        probabilities: (N, 28).
        proportions: (28,), in 0..1.
    """
    counts = np.rint(proportions * len(probabilities)).astype(np.int64)
    return cut(-np.sort(-probabilities, axis=0), counts)


def curve_macro_f1(probabilities: Floats, truth: Bools, proportions: Floats) -> float:
    """Macro-F1 if each label is predicted for the same proportion of samples as in training.

    For learning curves: no threshold is fitted to the true labels of these samples.

    Args:
        probabilities: (N, 28).
        truth: (N, 28).
        proportions: (28,), the proportion of training samples with each label.
    """
    return macro_f1(probabilities >= match_counts(probabilities, proportions), truth)


def cut(descending: Floats, counts: npt.NDArray[np.int64]) -> Thresholds:
    """Thresholds halfway between the ``counts``-th value (from 1) of each column and the next lower one."""
    # A count of 0 gives a threshold above 1 because of the sentinel 2, so the label is never predicted.
    padded = np.pad(descending.astype(np.float64), ((1, 1), (0, 0)), constant_values=((2, 0), (0, 0)))
    columns = np.arange(padded.shape[1])
    high, low = padded[counts, columns], padded[counts + 1, columns]
    middle = low + (high - low) / 2
    # The middle of two adjacent floats may round to the lower one, which must stay below the threshold.
    return np.where(middle > low, middle, high)
