"""From probabilities to decisions: how a threshold per label is chosen, and how it is applied."""

from typing import get_args

import numpy as np

from pipeline.params import Policy
from pipeline.scoring.counts import Thresholds, cut, match_counts
from pipeline.scoring.metrics import Bools, Floats

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


def choose_thresholds(
    policy: Policy, probabilities: Floats, truth: Bools, *, fixed: float, shrinkage: float
) -> Thresholds:
    """Thresholds of one policy, (28,), from samples whose truth is known.

    Args:
        policy: ``fixed`` is the given constant; ``global`` the one constant with the highest macro-F1;
            ``per_label`` the threshold with the highest F1 of each label, shrunk towards the global one;
            ``counts`` gives each label to as many samples as truly have it.
        probabilities: (N, 28).
        truth: (N, 28).
        fixed: the constant of ``fixed``.
        shrinkage: the positives at which a label's own threshold and the global one weigh the same.
    """
    labels = truth.shape[1]
    if policy == "fixed":
        return np.full(labels, fixed)
    if policy == "counts":
        return match_counts(probabilities, truth.mean(axis=0))
    shared = best_threshold(probabilities, truth)
    if policy == "global":
        return np.full(labels, shared)
    own = np.array([best_threshold(probabilities[:, [label]], truth[:, [label]]) for label in range(labels)])
    positives = truth.sum(axis=0)
    # A label without positives has no threshold of its own, however weak the shrinkage.
    weight = positives / np.maximum(positives + shrinkage, 1)
    shrunk: Thresholds = weight * own + (1 - weight) * shared
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
