"""Bagged thresholds: each label's best threshold, stabilised by theory, by the other labels and by resampling."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from pipeline.evaluation.calibration import Doubles, finite_logit
from pipeline.evaluation.metrics import Bools, Floats, Thresholds, f1_ratio

RESAMPLES = 20
"""Bootstrap resamples; with 50, thresholds are hardly less noisy."""

OFFSETS = np.arange(-120, 121) / 20
"""Distances from the expected optimum that are tried, in logits: -6 to 6 in steps of 0.05."""

TIED = 1e-9
"""F1 scores that differ by less are equal, so that the choice does not depend on the order of summation."""


@dataclass(frozen=True)
class Ranked:
    """Samples in the order of each label's probability, the highest first; all arrays are (N, 28).

    Attributes:
        rows: positions of the samples.
        logits: of the probabilities.
        probabilities: in double precision.
        truth: true labels.
    """

    rows: npt.NDArray[np.intp]
    logits: Doubles
    probabilities: Doubles
    truth: Bools


def bagged_thresholds(probabilities: Floats, truth: Bools, shrinkage: float) -> Thresholds:
    """The mean, in logits, of the thresholds chosen in bootstrap resamples of the samples: (28,).

    The best threshold on a sample is a step function of the data, and such estimates gain most by averaging over
    resamples (Breiman, "Bagging Predictors", Machine Learning 1996; Buhlmann and Yu, "Analyzing Bagging", Annals of
    Statistics 2002). Samples are resampled rather than groups: nothing is judged on them.

    Args:
        probabilities: (N, 28).
        truth: (N, 28).
        shrinkage: see `choose_offsets`.
    """
    # In an order of their own, so that the resamples do not depend on the order of the rows.
    order = np.lexsort(np.hstack([truth, probabilities]).T)
    ranked = rank(probabilities[order], truth[order])
    generator, samples = np.random.default_rng(0), len(truth)
    drawn = (np.bincount(generator.integers(samples, size=samples), minlength=samples) for _ in range(RESAMPLES))
    chosen = np.stack([resampled_thresholds(ranked, counts, shrinkage) for counts in drawn])
    thresholds: Thresholds = expit(chosen.mean(axis=0))
    return thresholds


def rank(probabilities: Floats, truth: Bools) -> Ranked:
    """Sort the samples by the probability of each label."""
    rows = np.argsort(-probabilities, axis=0, kind="stable")
    descending = np.take_along_axis(probabilities, rows, axis=0).astype(np.float64)
    return Ranked(rows, finite_logit(descending), descending, np.take_along_axis(truth, rows, axis=0))


def resampled_thresholds(ranked: Ranked, counts: npt.NDArray[np.int64], shrinkage: float) -> Doubles:
    """The thresholds, (28,) logits, chosen in one resample.

    If probabilities are calibrated, the best threshold of a label is half of its highest expected F1 (Lipton et al.,
    "Optimal Thresholding of Classifiers to Maximize F1 Measure", ECML PKDD 2014). So a label that is hard to recognise
    has a lower one. The truth moves the thresholds from there, by offsets.

    Args:
        ranked: the samples.
        counts: (N,), how often each sample was drawn.
        shrinkage: see `choose_offsets`.
    """
    drawn = counts[ranked.rows]
    decided, hits = drawn.cumsum(axis=0), (drawn * ranked.truth).cumsum(axis=0)
    expected_hits = (drawn * ranked.probabilities).cumsum(axis=0)
    expected = finite_logit(f1_ratio(expected_hits, decided + expected_hits[-1]).max(axis=0) / 2)
    f1 = np.empty((len(expected), len(OFFSETS)))
    for label, optimum in enumerate(expected):
        # Positions in the sorted logits are numbers of samples that reach a threshold; 0 samples have no hits.
        reached = np.searchsorted(-ranked.logits[:, label], -(optimum + OFFSETS), side="right")
        found, positive = np.append(0, hits[:, label])[reached], np.append(0, decided[:, label])[reached]
        f1[label] = f1_ratio(found, positive + hits[-1, label])
    chosen: Doubles = expected + choose_offsets(f1, hits[-1], shrinkage)
    return chosen


def choose_offsets(f1: Doubles, positives: npt.NDArray[np.int64], shrinkage: float) -> Doubles:
    """Shrink the best offset of each label towards the one with the highest macro-F1: (28,), in logits.

    Args:
        f1: (28, len(OFFSETS)), of each label at each offset.
        positives: (28,), of each label.
        shrinkage: number of positives at which both offsets have equal weight.
    """
    weight = positives / np.maximum(positives + shrinkage, 1)
    offsets: Doubles = weight * np.array([best_offset(own) for own in f1]) + (1 - weight) * best_offset(f1.mean(axis=0))
    return offsets


def best_offset(f1: Doubles) -> float:
    """The offset with the highest score; of several, their mean."""
    return float(OFFSETS[f1 >= f1.max() - TIED].mean())
