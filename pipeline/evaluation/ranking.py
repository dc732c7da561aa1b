"""Average precision in weighted resamples of the samples: how well probabilities rank, without any threshold."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from pipeline.evaluation.metrics import Bools, Floats

Doubles = npt.NDArray[np.float64]

BATCH = 100
"""Resamples that are computed at once, which limits the memory needed."""


def group_weights(groups: npt.NDArray[np.str_], *, resamples: int, seed: int) -> Iterator[Doubles]:
    """How often each sample is in each bootstrap resample of the groups, in batches of (B, N).

    All samples of a group are drawn together, as in ``intervals.f1_resamples``.

    Args:
        groups: (N,).
        resamples: number of resamples.
        seed: of the draws.
    """
    names, membership = np.unique(groups, return_inverse=True)
    generator = np.random.default_rng(seed)
    for start in range(0, resamples, BATCH):
        drawn = generator.integers(len(names), size=(min(BATCH, resamples - start), len(names)))
        yield np.stack([np.bincount(row, minlength=len(names)) for row in drawn])[:, membership].astype(np.float64)


def average_precision(probabilities: Floats, truth: Bools, weights: Doubles) -> Doubles:
    """Average precision of each label with weighted samples, (B, L); NaN for a label without positives.

    The sum of precision times the increase of recall over the distinct probabilities, as scikit-learn's
    ``average_precision_score``.

    Args:
        probabilities: (N, L).
        truth: (N, L).
        weights: (B, N).
    """
    found = np.full((len(weights), truth.shape[1]), np.nan)
    for label, (column, positive) in enumerate(zip(probabilities.T, truth.T, strict=True)):
        order = np.argsort(-column, kind="stable")
        ends = np.flatnonzero(np.append(np.diff(column[order]) != 0, True))  # of runs of equal probabilities
        sorted_weights = weights[:, order]
        hits = np.cumsum(sorted_weights * positive[order], axis=1)[:, ends]
        taken = np.cumsum(sorted_weights, axis=1)[:, ends]
        precision = np.divide(hits, taken, out=np.zeros_like(hits), where=taken > 0)
        total = hits[:, -1]
        area = (precision * np.diff(hits, axis=1, prepend=0)).sum(axis=1)
        np.divide(area, total, out=found[:, label], where=total > 0)
    return found


def mean_average_precision(probabilities: Floats, truth: Bools, weights: Doubles) -> Doubles:
    """Mean of ``average_precision`` over the labels that have positives, (B,).

    Raises:
        ValueError: no label has any.
    """
    if not truth.any():
        raise ValueError("no sample has a label")
    return np.asarray(np.nanmean(average_precision(probabilities, truth, weights), axis=1))
