"""Decisions on each fold by thresholds that were chosen without it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.scoring.counts import Thresholds
from pipeline.scoring.metrics import Bools, Floats
from pipeline.scoring.thresholds import decide


@dataclass(frozen=True)
class CrossFit:
    """Decisions that no sample's own truth had a part in.

    Attributes:
        decisions: (N, 28).
        thresholds: (28,) by fold, those applied to its samples.
    """

    decisions: Bools
    thresholds: dict[int, Thresholds]


def cross_fit(
    probabilities: Floats,
    truth: Bools,
    folds: npt.NDArray[np.int64],
    choose: Callable[[Floats, Bools], Thresholds],
) -> CrossFit:
    """Decide each fold by thresholds chosen on the other folds.

    Args:
        probabilities: (N, 28), each row from models that did not see the sample.
        truth: (N, 28).
        folds: (N,), at least two different ones.
        choose: thresholds, (28,), from probabilities and truth.
    """
    decisions = np.zeros(truth.shape, dtype=np.bool_)
    thresholds = {}
    for fold in np.unique(folds).tolist():
        held_out = folds == fold
        thresholds[fold] = choose(probabilities[~held_out], truth[~held_out])
        decisions[held_out] = decide(probabilities[held_out], thresholds[fold])
    return CrossFit(decisions, thresholds)
