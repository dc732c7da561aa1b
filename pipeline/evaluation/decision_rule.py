"""The decision rule, from the probabilities of several models to decisions, and its cross-fitting.

A rule is a blend, its calibration and a threshold per label. They are fitted and applied together, so that cross-fitted
scores cover all three.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.core.params import Ensemble
from pipeline.evaluation.blending import Blender, fit_blender
from pipeline.evaluation.calibration import Calibration, Singles, fit_calibration
from pipeline.evaluation.metrics import Bools, Floats, Thresholds
from pipeline.evaluation.thresholds import choose_thresholds, decide


@dataclass(frozen=True)
class DecisionRule:
    """A blend, its calibration, and decision thresholds.

    Attributes:
        blender: of the models.
        calibration: of the blended probabilities.
        thresholds: (28,), for the calibrated probabilities.
    """

    blender: Blender
    calibration: Calibration
    thresholds: Thresholds

    def apply(self, members: Floats) -> tuple[Singles, Singles, Bools]:
        """Blended probabilities, calibrated ones and decisions, (N, 28) each, from probabilities (M, N, 28)."""
        uncalibrated = self.blender.apply(members)
        probabilities = self.calibration.apply(uncalibrated)
        return uncalibrated, probabilities, decide(probabilities, self.thresholds)


def fit_rule(members: Floats, truth: Bools, settings: Ensemble) -> DecisionRule:
    """Fit the blend, then its calibration, then the thresholds.

    Args:
        members: (M, N, 28), out-of-fold probabilities.
        truth: (N, 28).
        settings: the kinds of blend, calibration and thresholds, and their constants.
    """
    blender = fit_blender(settings.blend, members, truth, weight_l2=settings.weight_l2)
    blended = blender.apply(members)
    calibration = fit_calibration(settings.calibration, blended, truth, offset_sd=settings.offset_sd)
    thresholds = choose_thresholds(calibration.apply(blended), truth, settings)
    return DecisionRule(blender, calibration, thresholds)


@dataclass(frozen=True)
class CrossFit:
    """Out-of-fold predictions: the rule applied to a sample was not fitted on the sample's fold.

    Attributes:
        uncalibrated: (N, 28), blended probabilities.
        probabilities: (N, 28), blended and calibrated probabilities.
        decisions: (N, 28).
        rules: by fold, the rule applied to its samples.
    """

    uncalibrated: Singles
    probabilities: Singles
    decisions: Bools
    rules: dict[int, DecisionRule]


def cross_fit(
    members: Floats, truth: Bools, folds: npt.NDArray[np.int64], fit: Callable[[Floats, Bools], DecisionRule]
) -> CrossFit:
    """Apply to each fold a rule fitted on the other folds (blend, calibration and thresholds).

    Args:
        members: (M, N, 28), out-of-fold probabilities.
        truth: (N, 28).
        folds: (N,), with at least two different values.
        fit: fits a rule, from members and truth.
    """
    empty = np.empty(truth.shape, dtype=np.float32)
    result = CrossFit(empty, empty.copy(), np.zeros(truth.shape, dtype=np.bool_), {})
    for fold in np.unique(folds).tolist():
        held_out = folds == fold
        rule = result.rules[fold] = fit(members[:, ~held_out], truth[~held_out])
        applied = rule.apply(members[:, held_out])
        result.uncalibrated[held_out], result.probabilities[held_out], result.decisions[held_out] = applied
    return result
