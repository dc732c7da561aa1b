"""From probabilities to decisions: how a threshold per label is chosen, and how it is applied."""

from collections.abc import Mapping
from typing import get_args

import numpy as np
import numpy.typing as npt

from pipeline.core.labels import LABELS
from pipeline.core.params import Ensemble, Policy
from pipeline.evaluation.metrics import Bools, Floats, Thresholds, cut, match_counts

POLICIES: tuple[Policy, ...] = get_args(Policy)


def decide(probabilities: Floats, thresholds: Thresholds) -> Bools:
    """Labels whose probability reaches its threshold; a sample left without any gets its most probable one.

    Args:
        probabilities: (N, 28).
        thresholds: (28,); above 1 means never.

    Returns:
        (N, 28), at least one True per row.
    """
    decisions = probabilities >= thresholds
    empty = np.flatnonzero(~decisions.any(axis=1))
    decisions[empty, probabilities[empty].argmax(axis=1)] = True
    return decisions


def choose_thresholds(probabilities: Floats, truth: Bools, settings: Ensemble) -> Thresholds:
    """Thresholds of one policy, (28,), from samples whose truth is known.

    ``fixed`` is the given constant; ``global`` the one constant with the highest macro-F1; ``per_label`` the
    threshold with the highest F1 of each label, shrunk towards the global one; ``counts`` gives each label to
    its share of the samples; ``expected`` maximises the F1 that the probabilities themselves expect.

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
            own = [best_threshold(probabilities[:, [label]], truth[:, [label]]) for label in range(labels)]
            return shrink(np.array(own), probabilities, truth, settings.shrinkage)
        case "counts":
            return match_counts(probabilities, replaced(truth.mean(axis=0), settings.proportions))
        case "expected":
            return shrink(expected_f1(probabilities) / 2, probabilities, truth, settings.shrinkage)


def replaced(shares: Floats, given: Mapping[str, float]) -> Floats:
    """The shares by label, (28,), with those ``given`` by label name put in."""
    result = shares.copy()
    for name, share in given.items():
        result[LABELS.index(name)] = share
    return result


def expected_f1(probabilities: Floats) -> npt.NDArray[np.float64]:
    """The highest F1 of each label, (28,), that can be expected if the probabilities are true.

    Half of it is the best threshold (Lipton et al., "Optimal Thresholding of Classifiers to Maximize F1
    Measure", ECML PKDD 2014). It looks at all samples and not only at the few positives, so it is far less noisy than
    a threshold chosen by counting hits, and it is as good as the calibration is.

    Args:
        probabilities: (N, 28).
    """
    hits = np.cumsum(-np.sort(-probabilities.astype(np.float64), axis=0), axis=0)
    decided = np.arange(1, len(probabilities) + 1)[:, None]
    highest: npt.NDArray[np.float64] = (2 * hits / (decided + hits[-1])).max(axis=0)
    return highest


def shrink(own: Thresholds, probabilities: Floats, truth: Bools, shrinkage: float) -> Thresholds:
    """Draw each label's own threshold, (28,), towards the best shared one the more, the fewer positives it has.

    Args:
        own: (28,).
        probabilities: (N, 28).
        truth: (N, 28).
        shrinkage: the positives at which a label's own threshold and the shared one weigh the same.
    """
    positives = truth.sum(axis=0)
    # A label without positives has no threshold of its own, however weak the shrinkage.
    weight = positives / np.maximum(positives + shrinkage, 1)
    shrunk: Thresholds = weight * own + (1 - weight) * best_threshold(probabilities, truth)
    return shrunk


def best_threshold(probabilities: Floats, truth: Bools) -> float:
    """The one threshold for all columns with the highest macro-F1; the highest such threshold on ties.

    Exact: every cut between two different probabilities is tried, by sorting once and adding up how
    each label's F1 changes as its samples come in.

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
    # Rounded, because a tie must not hang on the order in which equal probabilities were added up.
    pooled, totals = pooled[order], np.cumsum(gains[order]).round(12)
    separable = np.append(pooled[:-1] > pooled[1:], True)
    return float(cut(pooled[:, None], np.array([np.where(separable, totals, -1).argmax() + 1]))[0])
