"""Intervals by resampling groups: how far a score would wander on other samples of the same kind."""

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from pipeline.scoring.metrics import Bools, f1_ratio

BATCH = 100
"""Resamples whose weights are held in memory at once."""


def f1_resamples(
    decisions: Bools, truth: Bools, groups: npt.NDArray[np.str_], *, resamples: int, seed: int
) -> npt.NDArray[np.float64]:
    """F1 of each label in each of many resamples of the groups, drawn with replacement.

    Samples of a group stand or fall together (a cluster bootstrap: Davison and Hinkley, "Bootstrap Methods
    and their Application", 1997, section 3.8), because fields of view of one antibody are near copies.

    Args:
        decisions: (N, 28), taken as given: thresholds are not chosen anew.
        truth: (N, 28).
        groups: (N,).
        resamples: how many.
        seed: of the draws.

    Returns:
        (resamples, 28); its mean over the labels is the macro-F1 of each resample.
    """
    names, membership = np.unique(groups, return_inverse=True)
    labels = truth.shape[1]
    counts = np.zeros((len(names), 2 * labels))
    np.add.at(counts, membership, np.hstack([decisions & truth, decisions.astype(np.int64) + truth]))
    generator = np.random.default_rng(seed)
    parts = []
    for start in range(0, resamples, BATCH):
        drawn = generator.integers(len(names), size=(min(BATCH, resamples - start), len(names)))
        weights = np.stack([np.bincount(row, minlength=len(names)) for row in drawn])
        totals = weights.astype(np.float64) @ counts
        parts.append(f1_ratio(totals[:, :labels], totals[:, labels:]))
    return np.concatenate(parts)


def interval(resampled: npt.NDArray[np.float64], estimate: float, confidence: float) -> tuple[float, float]:
    """The bias-corrected percentile interval of a figure.

    Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), section 14.3, without acceleration. The
    correction matters here: in a resample that loses a rare label's few positives its F1 is 0, which pulls
    plain percentiles of macro-F1 down.

    Args:
        resampled: (B,), the figure in each resample.
        estimate: the figure itself.
        confidence: the share of the interval, in 0..1.
    """
    below = ((resampled < estimate).mean() + (resampled <= estimate).mean()) / 2
    smallest = 1 / len(resampled)
    bias = norm.ppf(np.clip(below, smallest, 1 - smallest))
    tails = norm.cdf(2 * bias + norm.ppf([(1 - confidence) / 2, (1 + confidence) / 2]))
    low, high = np.quantile(resampled, tails)
    return float(low), float(high)
