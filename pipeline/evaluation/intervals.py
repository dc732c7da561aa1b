"""Confidence intervals of F1 scores by a bootstrap over groups: of one score, a difference, or a future test score.

Groups are resampled rather than samples, because fields of view of one antibody are near copies. Decisions are fixed:
neither models nor thresholds are fitted again, so the variation between training runs is not included.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.core.labels import LABELS
from pipeline.core.params import Score
from pipeline.evaluation.metrics import Bools, f1_by_label, f1_ratio

BATCH = 100
"""Resamples that are computed at once, which limits the memory needed."""


@dataclass(frozen=True)
class Difference:
    """The score of the second run minus that of the first, with the ends of its confidence interval."""

    estimate: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


def f1_resamples(
    decisions: Bools,
    truth: Bools,
    groups: npt.NDArray[np.str_],
    *,
    resamples: int,
    seed: int,
    size: int | None = None,
) -> npt.NDArray[np.float64]:
    """F1 of each label in bootstrap resamples of the groups, drawn with replacement.

    All samples of a group are drawn together (a cluster bootstrap: Davison and Hinkley, "Bootstrap Methods and their
    Application", 1997, section 3.8).

    Args:
        decisions: (N, 28).
        truth: (N, 28).
        groups: (N,).
        resamples: number of resamples.
        seed: of the draws.
        size: groups per resample; None is the number of groups.

    Returns:
        (resamples, 28); the mean over labels is the macro-F1 of each resample.
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
    """The percentile interval of a score, shifted by twice the bootstrap estimate of its bias.

    F1 of few positives is biased downwards. A resample, which may lose some of them, is biased twice as much: once as
    the estimate is, and once more relative to the estimate (the bootstrap estimate of bias: Davison and Hinkley,
    section 2.1). In macro-F1 the noise of the labels cancels but their bias does not, so plain percentiles lie too low.
    The shift moves them up, so the estimate can lie near the lower end of its interval. ``python -m
    benchmarks.coverage`` measures the remaining error of the coverage.

    Args:
        resampled: (B,), the score in each resample.
        estimate: the score itself.
        confidence: nominal coverage, in 0..1.
        least: the lowest possible score; the highest is 1.
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
    """The confidence interval of each label's F1, (28, 2).

    A label without true positives has F1 0 in every resample, so the bootstrap shows no uncertainty. Its upper end is
    taken from the exact binomial interval instead (Clopper and Pearson, Biometrika 1934; the "rule of three"): the
    share of true positives among the groups in which the label is predicted or true has an upper limit, and F1 grows
    with this share. The lower end of a label without errors follows in the same way. A label that is neither predicted
    nor true anywhere has the interval 0 to 1.

    Args:
        resampled: (B, 28), from `f1_resamples`.
        decisions: (N, 28).
        truth: (N, 28).
        groups: (N,).
        confidence: nominal coverage, in 0..1.
    """
    f1 = f1_by_label(decisions, truth)
    ends = np.array([interval(values, figure, confidence) for values, figure in zip(resampled.T, f1, strict=True)])
    involved = np.array([len(np.unique(groups[column])) for column in (decisions | truth).T])
    # A share at which all groups are true positives with the probability of one tail.
    share = _tails(confidence)[0] ** (1 / np.maximum(involved, 1))
    missed = np.where(involved > 0, 1 - share, 1)
    ends[:, 0] = np.where(f1 == 1, np.minimum(ends[:, 0], 2 * share / (1 + share)), ends[:, 0])
    ends[:, 1] = np.where(f1 == 0, np.maximum(ends[:, 1], 2 * missed / (1 + missed)), ends[:, 1])
    return ends


def expected_range(
    resampled: npt.NDArray[np.float64], future: npt.NDArray[np.float64], estimate: float, confidence: float
) -> tuple[float, float]:
    """A prediction interval: the range of the same score on new samples, whose sampling variance is included.

    The error of the estimate is distributed like resamples of its own size around it, and the new score varies around
    the true value like resamples of the new size around the estimate. The two errors are independent.

    Args:
        resampled: (B,), the score in resamples with the present number of groups.
        future: (B,), the score in resamples with the new number of groups, from another seed.
        estimate: the score itself.
        confidence: nominal coverage, in 0..1.
    """
    low, high = np.clip(np.quantile(estimate + future - resampled, _tails(confidence)), 0, 1)
    return float(low), float(high)


def difference(
    first: Bools, second: Bools, truth: Bools, groups: npt.NDArray[np.str_], settings: Score
) -> tuple[Difference, pd.DataFrame]:
    """Paired bootstrap of a difference in F1: both runs are scored on the same resampled groups.

    Samples that are easy or hard for both cancel, so the interval is narrower than those of the two scores suggest.

    Args:
        first: (N, 28), decisions of the first run.
        second: (N, 28), decisions of the second run on the same samples.
        truth: (N, 28).
        groups: (N,).
        settings: of the bootstrap.

    Returns:
        The difference in macro-F1, and a table with a row per label: label, name, positives, first and second (F1),
        difference, low, high.
    """
    before, after = f1_by_label(first, truth), f1_by_label(second, truth)
    # Paired: the same seed and groups give the same resamples.
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


def _tails(confidence: float) -> tuple[float, float]:
    """The two quantiles between which a central interval lies."""
    return (1 - confidence) / 2, (1 + confidence) / 2
