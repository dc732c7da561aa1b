"""Intervals by resampling groups: how far a score would wander on other samples of the same kind."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.core.labels import LABELS
from pipeline.core.params import Score
from pipeline.evaluation.metrics import Bools, f1_by_label, f1_ratio

BATCH = 100
"""Resamples whose weights are held in memory at once."""


def f1_resamples(
    decisions: Bools,
    truth: Bools,
    groups: npt.NDArray[np.str_],
    *,
    resamples: int,
    seed: int,
    size: int | None = None,
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
        size: groups in a resample; as many as there are, if None.

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
        drawn = generator.integers(len(names), size=(min(BATCH, resamples - start), size or len(names)))
        weights = np.stack([np.bincount(row, minlength=len(names)) for row in drawn])
        totals = weights.astype(np.float64) @ counts
        parts.append(f1_ratio(totals[:, :labels], totals[:, labels:]))
    return np.concatenate(parts)


def interval(
    resampled: npt.NDArray[np.float64], estimate: float, confidence: float, *, least: float = 0
) -> tuple[float, float]:
    """The percentile interval of a figure, moved by twice the bootstrap's bias.

    F1 of few positives is biased downwards, and that of a resample, which may lose them, twice as much (the
    bootstrap's estimate of bias: Davison and Hinkley, section 2.1). Macro-F1 adds up the bias of its labels while
    their noise cancels, so plain percentiles lie too low; ``python -m benchmarks.coverage`` measures the rest.

    Args:
        resampled: (B,), the figure in each resample.
        estimate: the figure itself.
        confidence: the share of the interval, in 0..1.
        least: the lowest value the figure can have; the highest is 1.
    """
    ends = np.quantile(resampled, _tails(confidence)) - 2 * (resampled.mean() - estimate)
    low, high = np.clip(ends, least, 1)
    return float(low), float(high)


def label_intervals(
    resampled: npt.NDArray[np.float64],
    decisions: Bools,
    truth: Bools,
    groups: npt.NDArray[np.str_],
    confidence: float,
) -> npt.NDArray[np.float64]:
    """The interval of each label's F1, (28, 2); wide where little is known.

    A label with nothing but misses has F1 0 in every resample, which is no proof that it would stay there. Its hits,
    as a share of the groups that are decided or true, have the upper end of Clopper and Pearson (Biometrika 1934;
    the "rule of three"), and so has F1, which grows with that share; a label with nothing but hits is its mirror
    image. A label without any such group can have every F1.

    Args:
        resampled: (B, 28), from `f1_resamples`.
        decisions: (N, 28).
        truth: (N, 28).
        groups: (N,).
        confidence: the share of the interval, in 0..1.
    """
    f1 = f1_by_label(decisions, truth)
    ends = np.array([interval(values, figure, confidence) for values, figure in zip(resampled.T, f1, strict=True)])
    involved = np.array([len(np.unique(groups[column])) for column in (decisions | truth).T])
    # The share that shows itself in every one of the groups with the probability of a tail.
    share = _tails(confidence)[0] ** (1 / np.maximum(involved, 1))
    missed = np.where(involved > 0, 1 - share, 1)
    ends[:, 0] = np.where(f1 == 1, np.minimum(ends[:, 0], 2 * share / (1 + share)), ends[:, 0])
    ends[:, 1] = np.where(f1 == 0, np.maximum(ends[:, 1], 2 * missed / (1 + missed)), ends[:, 1])
    return ends


def expected_range(
    resampled: npt.NDArray[np.float64], future: npt.NDArray[np.float64], estimate: float, confidence: float
) -> tuple[float, float]:
    """Where the same figure of new samples falls, which are few and wander as well: a prediction interval.

    The new figure is off the truth by as much as one of a resample of their size is off the estimate, and the truth
    off the estimate by as much as the estimate is off one of a resample of its own size.

    Args:
        resampled: (B,), the figure in resamples of the samples' own number of groups.
        future: (B,), the same with the new samples' number of groups, from another seed.
        estimate: the figure itself.
        confidence: the share of the interval, in 0..1.
    """
    low, high = np.clip(np.quantile(estimate + future - resampled, _tails(confidence)), 0, 1)
    return float(low), float(high)


def _tails(confidence: float) -> tuple[float, float]:
    return (1 - confidence) / 2, (1 + confidence) / 2


@dataclass(frozen=True)
class Difference:
    """What the second way scores more than the first, with its interval."""

    estimate: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def difference(
    first: Bools, second: Bools, truth: Bools, groups: npt.NDArray[np.str_], settings: Score
) -> tuple[Difference, pd.DataFrame]:
    """Paired bootstrap of a difference in F1: both ways are scored on the same resampled groups.

    What both find easy or hard cancels, so the interval is narrower than those of the scores would suggest.

    Args:
        first: decisions (N, 28).
        second: decisions (N, 28) on the same samples.
        truth: (N, 28).
        groups: (N,).
        settings: of the bootstrap.

    Returns:
        The difference in macro-F1, and a table of the labels with a row each: label, name, positives, first and
        second (F1), difference, low, high.
    """
    before, after = f1_by_label(first, truth), f1_by_label(second, truth)
    # The same seed and groups draw the same resamples, which is what pairs them.
    drawn = [
        f1_resamples(decisions, truth, groups, resamples=settings.resamples, seed=settings.seed)
        for decisions in (first, second)
    ]
    change = drawn[1] - drawn[0]
    ends = [
        interval(values, estimate, settings.confidence, least=-1)
        for values, estimate in zip(change.T, after - before, strict=True)
    ]
    table = pd.DataFrame(
        {
            "label": range(len(LABELS)),
            "name": LABELS,
            "positives": truth.sum(axis=0),
            "first": before,
            "second": after,
            "difference": after - before,
            "low": [low for low, _ in ends],
            "high": [high for _, high in ends],
        }
    )
    estimate = float(after.mean() - before.mean())
    return Difference(estimate, *interval(change.mean(axis=1), estimate, settings.confidence, least=-1)), table
