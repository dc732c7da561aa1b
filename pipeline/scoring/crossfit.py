"""Probabilities and decisions on each fold by a rule that was fitted without it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.scoring.calibration import Singles
from pipeline.scoring.metrics import Bools, Floats
from pipeline.scoring.rule import Rule


@dataclass(frozen=True)
class CrossFit:
    """What no sample's own truth had a part in.

    Attributes:
        uncalibrated: (N, 28), the blend.
        probabilities: (N, 28), the blend calibrated.
        decisions: (N, 28).
        rules: by fold, those applied to its samples.
    """

    uncalibrated: Singles
    probabilities: Singles
    decisions: Bools
    rules: dict[int, Rule]


def cross_fit(
    members: Floats, truth: Bools, folds: npt.NDArray[np.int64], fit: Callable[[Floats, Bools], Rule]
) -> CrossFit:
    """Decide each fold by a rule fitted on the other folds: weights, calibration and thresholds alike.

    Args:
        members: (M, N, 28), rows from models that did not see the sample.
        truth: (N, 28).
        folds: (N,), at least two different ones.
        fit: a rule, from members and truth.
    """
    empty = np.empty(truth.shape, dtype=np.float32)
    result = CrossFit(empty, empty.copy(), np.zeros(truth.shape, dtype=np.bool_), {})
    for fold in np.unique(folds).tolist():
        held_out = folds == fold
        rule = result.rules[fold] = fit(members[:, ~held_out], truth[~held_out])
        applied = rule.blend(members[:, held_out])
        result.uncalibrated[held_out], result.probabilities[held_out], result.decisions[held_out] = applied
    return result
