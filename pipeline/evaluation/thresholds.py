"""Decision thresholds: choosing one per label, and applying them to probabilities."""

from collections.abc import Mapping
from typing import get_args

import numpy as np
import numpy.typing as npt

from pipeline.core.labels import LABELS
from pipeline.core.params import Ensemble, Policy
from pipeline.evaluation.bagging import bagged_thresholds
from pipeline.evaluation.metrics import Bools, Floats, Thresholds, cut, match_counts

POLICIES: tuple[Policy, ...] = get_args(Policy)


def decide(probabilities: Floats, thresholds: Thresholds) -> Bools:
    """Predict the labels whose probability reaches the threshold; if there is none, the most probable label.

    Args:
        probabilities: (N, 28).
        thresholds: (28,); above 1, a label is never predicted unless it is the most probable one.

    Returns:
        (N, 28), at least one True per row.
    """
    decisions = probabilities >= thresholds
    empty = np.flatnonzero(~decisions.any(axis=1))
    decisions[empty, probabilities[empty].argmax(axis=1)] = True
    return decisions


def choose_thresholds(probabilities: Floats, truth: Bools, settings: Ensemble) -> Thresholds:
    """Choose thresholds, (28,), by the policy of the settings.

    - ``fixed``: a constant from the settings.
    - ``global``: the constant with the highest macro-F1.
    - ``per_label``: for each label the threshold with the highest F1, shrunk towards the global one.
    - ``counts``: predict each label as often as it occurs in these samples, or in the proportions of the settings.
    - ``expected``: maximise each label's F1 as expected from the calibrated probabilities, shrunk in the same way.
    - ``bagged``: from the thresholds of the highest expected F1, shift each label to its best F1, shrunk towards the
      best shift shared by all labels; averaged over bootstrap resamples. See `bagged_thresholds`.

    Args:
        probabilities: (N, 28).
        truth: (N, 28).
        settings: the policy and its constants.
    """
    labels = truth.shape[1]
    match settings.thresholds:
        case "fixed":
            return np.full(labels, settings.fixed_threshold)
        case "global":
            return np.full(labels, best_threshold(probabilities, truth))
        case "per_label":
            best = [best_threshold(probabilities[:, [label]], truth[:, [label]]) for label in range(labels)]
            return shrink(np.array(best), probabilities, truth, settings.shrinkage)
        case "counts":
            return match_counts(probabilities, replaced(truth.mean(axis=0), settings.proportions))
        case "expected":
            return shrink(expected_f1(probabilities) / 2, probabilities, truth, settings.shrinkage)
        case "bagged":
            return bagged_thresholds(probabilities, truth, settings.shrinkage)


def replaced(shares: Floats, given: Mapping[str, float]) -> Floats:
    """The shares, (28,), with those in ``given`` (by label name) replaced."""
    result = shares.copy()
    for name, share in given.items():
        result[LABELS.index(name)] = share
    return result


def expected_f1(probabilities: Floats) -> npt.NDArray[np.float64]:
    """The highest expected F1 of each label, (28,), if the probabilities are well calibrated.

    Half of it is the optimal threshold (Lipton et al., "Optimal Thresholding of Classifiers to Maximize F1 Measure",
    ECML PKDD 2014). It is estimated from the probabilities of all samples, so it is far less noisy than a threshold
    fitted to the few positives, but it depends on the calibration.

    Args:
        probabilities: (N, 28).
    """
    hits = np.cumsum(-np.sort(-probabilities.astype(np.float64), axis=0), axis=0)
    decided = np.arange(1, len(probabilities) + 1)[:, None]
    highest: npt.NDArray[np.float64] = (2 * hits / (decided + hits[-1])).max(axis=0)
    return highest


def shrink(own: Thresholds, probabilities: Floats, truth: Bools, shrinkage: float) -> Thresholds:
    """Shrink each label's threshold, (28,), towards the best global one; the fewer positives, the more.

    Args:
        own: (28,).
        probabilities: (N, 28).
        truth: (N, 28).
        shrinkage: number of positives at which both thresholds have equal weight.
    """
    positives = truth.sum(axis=0)
    # A label without positives gets the global threshold, even with a shrinkage of 0.
    weight = positives / np.maximum(positives + shrinkage, 1)
    shrunk: Thresholds = weight * own + (1 - weight) * best_threshold(probabilities, truth)
    return shrunk


def best_threshold(probabilities: Floats, truth: Bools) -> float:
    """The threshold, shared by all columns, with the highest macro-F1; of several, the highest.

    Exact: evaluates every cut between two different probabilities. It sorts once and accumulates the changes of each
    label's F1 as the threshold decreases.

    Args:
        probabilities: (N, L), N at least 1.
        truth: (N, L).
    """
    order = np.argsort(-probabilities, axis=0, kind="stable")
    descending = np.take_along_axis(probabilities, order, axis=0)
    hits = np.cumsum(np.take_along_axis(truth, order, axis=0), axis=0)
    decided = np.arange(1, len(truth) + 1)[:, None]
    gains = np.diff(2 * hits / (decided + truth.sum(axis=0)), axis=0, prepend=0).ravel()
    pooled = descending.ravel()
    order = np.argsort(-pooled, kind="stable")
    # Rounded, so that ties do not depend on the order of summation.
    pooled, totals = pooled[order], np.cumsum(gains[order]).round(12)
    separable = np.append(pooled[:-1] > pooled[1:], True)
    return float(cut(pooled[:, None], np.array([np.where(separable, totals, -1).argmax() + 1]))[0])
