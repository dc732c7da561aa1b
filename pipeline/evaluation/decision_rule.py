"""The whole way from several models' probabilities to decisions, as one thing that is fitted and applied."""

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
    """A blend, its calibration, and thresholds of what comes out.

    Attributes:
        mixture: of the models.
        calibration: of the blend.
        thresholds: (28,), of calibrated probabilities.
    """

    mixture: Blender
    calibration: Calibration
    thresholds: Thresholds

    def apply(self, members: Floats) -> tuple[Singles, Singles, Bools]:
        """Blended probabilities, the same calibrated, and the decisions, (N, 28) each, from (M, N, 28)."""
        uncalibrated = self.mixture.apply(members)
        probabilities = self.calibration.apply(uncalibrated)
        return uncalibrated, probabilities, decide(probabilities, self.thresholds)


def fit_rule(members: Floats, truth: Bools, settings: Ensemble) -> DecisionRule:
    """Learn weights, calibration and thresholds, in this order, from samples whose truth is known.

    Args:
        members: (M, N, 28), rows from models that did not see the sample.
        truth: (N, 28).
        settings: which kinds, and their constants.
    """
    mixture = fit_blender(settings.blend, members, truth, weight_l2=settings.weight_l2)
    blended = mixture.apply(members)
    calibration = fit_calibration(settings.calibration, blended, truth, offset_sd=settings.offset_sd)
    thresholds = choose_thresholds(calibration.apply(blended), truth, settings)
    return DecisionRule(mixture, calibration, thresholds)


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
    rules: dict[int, DecisionRule]


def cross_fit(
    members: Floats, truth: Bools, folds: npt.NDArray[np.int64], fit: Callable[[Floats, Bools], DecisionRule]
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
        applied = rule.apply(members[:, held_out])
        result.uncalibrated[held_out], result.probabilities[held_out], result.decisions[held_out] = applied
    return result
