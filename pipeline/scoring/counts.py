"""Deciding by count: each label goes to as many samples as a proportion says."""

import numpy as np
import numpy.typing as npt

from pipeline.scoring.metrics import Bools, Floats, macro_f1

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
