"""Scores of decisions, and of the probabilities behind them."""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]

CALIBRATION_BINS = 15


def f1_ratio(true_positives: npt.NDArray[Any], decided_plus_positives: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """F1 from counts: twice the true positives over decided plus true labels; 0 where there are none of either."""
    ratio = np.zeros(np.shape(true_positives))
    np.divide(2 * true_positives, decided_plus_positives, out=ratio, where=decided_plus_positives > 0)
    return ratio


def f1_by_label(decisions: Bools, truth: Bools) -> npt.NDArray[np.float64]:
    """F1 of each label, (28,), from decisions and truth (N, 28); a label neither decided nor true has 0."""
    return f1_ratio((decisions & truth).sum(axis=0), decisions.sum(axis=0) + truth.sum(axis=0))


def macro_f1(decisions: Bools, truth: Bools) -> float:
    """Mean F1 over all labels, the competition's score: an absent label counts as 0."""
    return float(f1_by_label(decisions, truth).mean())


def macro_f1_present(decisions: Bools, truth: Bools) -> float:
    """Mean F1 over the labels that at least one of these samples truly has; 0 without any."""
    present = truth.any(axis=0)
    return float(f1_by_label(decisions, truth)[present].mean()) if present.any() else 0.0


def binary_cross_entropy(probabilities: Floats, truth: Bools) -> float:
    """Mean over samples and labels, in nats; probabilities within 1e-7 of 0 and 1 count as that far away."""
    clipped = np.clip(probabilities.astype(np.float64), 1e-7, 1 - 1e-7)
    return float(-np.log(np.where(truth, clipped, 1 - clipped)).mean())


def calibration_error(probabilities: Floats, truth: Bools) -> float:
    """Expected calibration error over all (sample, label) pairs, in 15 bins of equal width.

    Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning" (AAAI 2015): the
    distance between mean probability and share of positives in a bin, weighted by the bin's pairs.
    """
    flat = probabilities.astype(np.float64).ravel()
    bins = np.minimum((flat * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    excess = np.bincount(bins, weights=flat - truth.ravel())
    return float(np.abs(excess).sum() / flat.size)


Thresholds = npt.NDArray[np.float64]


def match_counts(probabilities: Floats, proportions: Floats) -> Thresholds:
    """Thresholds, (28,), that give each label to its proportion of these samples.

    The choice of the 1st, 3rd and 4th teams of the competition. Samples with equal probabilities stay
    together, so a label whose cut falls among them is given to more.

    Args:
        probabilities: (N, 28).
        proportions: (28,), shares in 0..1.
    """
    counts = np.rint(proportions * len(probabilities)).astype(np.int64)
    return cut(-np.sort(-probabilities, axis=0), counts)


def curve_macro_f1(probabilities: Floats, truth: Bools, proportions: Floats) -> float:
    """Macro-F1 when each label goes to as many samples as its training proportion says.

    No decision comes from these samples' truth, so the figure suits a learning curve.

    Args:
        probabilities: (N, 28).
        truth: (N, 28).
        proportions: (28,), the shares of the training samples that have each label.
    """
    return macro_f1(probabilities >= match_counts(probabilities, proportions), truth)


def cut(descending: Floats, counts: npt.NDArray[np.int64]) -> Thresholds:
    """Thresholds halfway between each column's value number ``counts`` and the next lower one."""
    # A sentinel of 2 puts the threshold that none reaches above 1: never, for other samples as well.
    padded = np.pad(descending.astype(np.float64), ((1, 1), (0, 0)), constant_values=((2, 0), (0, 0)))
    columns = np.arange(padded.shape[1])
    high, low = padded[counts, columns], padded[counts + 1, columns]
    middle = low + (high - low) / 2
    # The middle of two neighbouring floats may round to the lower one, which must stay out.
    return np.where(middle > low, middle, high)
