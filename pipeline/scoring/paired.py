"""Two ways to decide the same samples: how far apart they score, and whether that could be chance."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.labels import LABELS
from pipeline.params import Score
from pipeline.scoring.bootstrap import f1_resamples, interval
from pipeline.scoring.metrics import Bools, f1_by_label


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
