"""The whole way from several models' probabilities to decisions, as one thing that is fitted and applied."""

from dataclasses import dataclass

from pipeline.params import Ensemble
from pipeline.scoring.calibration import Calibration, Singles, fit_calibration
from pipeline.scoring.counts import Thresholds
from pipeline.scoring.metrics import Bools, Floats
from pipeline.scoring.mixture import Mixture, fit_mixture
from pipeline.scoring.thresholds import choose_thresholds, decide


@dataclass(frozen=True)
class Rule:
    """A blend, its calibration, and thresholds of what comes out.

    Attributes:
        mixture: of the models.
        calibration: of the blend.
        thresholds: (28,), of calibrated probabilities.
    """

    mixture: Mixture
    calibration: Calibration
    thresholds: Thresholds

    def blend(self, members: Floats) -> tuple[Singles, Singles, Bools]:
        """Blended probabilities, the same calibrated, and the decisions, (N, 28) each, from (M, N, 28)."""
        uncalibrated = self.mixture.apply(members)
        probabilities = self.calibration.apply(uncalibrated)
        return uncalibrated, probabilities, decide(probabilities, self.thresholds)


def fit_rule(members: Floats, truth: Bools, settings: Ensemble) -> Rule:
    """Learn weights, calibration and thresholds, in this order, from samples whose truth is known.

    Args:
        members: (M, N, 28), rows from models that did not see the sample.
        truth: (N, 28).
        settings: which kinds, and their constants.
    """
    mixture = fit_mixture(settings.blend, members, truth, pull=settings.pull)
    blended = mixture.apply(members)
    calibration = fit_calibration(settings.calibration, blended, truth, spread=settings.spread)
    thresholds = choose_thresholds(calibration.apply(blended), truth, settings)
    return Rule(mixture, calibration, thresholds)
