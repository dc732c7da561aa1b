"""Calibration of probabilities: temperature scaling and Platt scaling."""

from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit, logit

from pipeline.core.params import Calibrating
from pipeline.evaluation.metrics import Bools, Floats

SMALLEST = 1e-7
"""Probabilities are clipped to this distance from 0 and 1, where float32 has no finite logit."""

Doubles = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]

CALIBRATIONS: tuple[Calibrating, ...] = get_args(Calibrating)


def finite_logit(probabilities: Floats) -> Doubles:
    """Logits in double precision, of probabilities clipped away from 0 and 1."""
    logits: Doubles = logit(np.clip(probabilities.astype(np.float64), SMALLEST, 1 - SMALLEST))
    return logits


@dataclass(frozen=True)
class Calibration:
    """A linear map of logits, ``slope * logit + offset``.

    Attributes:
        slope: shared by all labels.
        offsets: (28,), one per label, in logits.
    """

    slope: float
    offsets: Doubles

    def apply(self, probabilities: Floats) -> Singles:
        """Calibrate probabilities (N, 28)."""
        return expit(self.slope * finite_logit(probabilities) + self.offsets).astype(np.float32)


def fit_calibration(kind: Calibrating, probabilities: Floats, truth: Bools, *, offset_sd: float) -> Calibration:
    """Fit a calibration by maximum likelihood.

    ``temperature`` fits the slope alone (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017).
    ``platt`` adds offsets (Platt, "Probabilistic Outputs for Support Vector Machines", 1999). The offset of a label has
    a normal prior around an offset shared by all labels, so that rare labels are shrunk towards the common offset.

    Args:
        kind: ``temperature``, ``platt``, or ``none`` for the identity.
        probabilities: (N, 28).
        truth: (N, 28).
        offset_sd: standard deviation of that prior, in logits; with 0, all labels have the shared offset.
    """
    labels = truth.shape[1]
    if kind == "none":
        return Calibration(1.0, np.zeros(labels))
    shared_offset = kind == "platt"
    free = np.array([True, shared_offset, *[shared_offset and offset_sd > 0] * labels])
    precision = np.array([0.0, 0.0, *[1 / offset_sd**2 if offset_sd > 0 else 0.0] * labels])
    slope, offset, *own = maximise_likelihood(finite_logit(probabilities), truth, free, precision)
    return Calibration(slope, offset + np.array(own))


def maximise_likelihood(logits: Doubles, truth: Bools, free: Bools, precision: Doubles) -> list[float]:
    """Fit the slope, the shared offset and each label's deviation from it; return these 30 values.

    Args:
        logits: (N, 28).
        truth: (N, 28).
        free: (30,), which values are fitted; the others stay at 1 (the slope) and 0.
        precision: (30,), inverse variance of the normal prior around 0 of each value; 0 is no prior.
    """
    point = np.array([1.0, *[0.0] * (len(free) - 1)])

    def scores(values: Doubles) -> Doubles:
        point[free] = values
        scored: Doubles = point[0] * logits + (point[1] + point[2:])
        return scored

    def loss(values: Doubles) -> tuple[float, Doubles]:
        scored = scores(values)
        excess = expit(scored) - truth
        by_label = excess.sum(axis=0)
        gradient = np.array([np.sum(excess * logits), by_label.sum(), *by_label]) + precision * point
        value = np.sum(np.logaddexp(0, scored) - truth * scored) + np.sum(precision * point**2) / 2
        return float(value), gradient[free]

    def curvature(values: Doubles) -> Doubles:
        sure = expit(scores(values))
        weights = sure * (1 - sure)
        zeroth, first = weights.sum(axis=0), (weights * logits).sum(axis=0)
        whole = np.diag(np.array([np.sum(weights * logits**2), zeroth.sum(), *zeroth]) + precision)
        whole[0, 1:] = whole[1:, 0] = [first.sum(), *first]
        whole[1, 2:] = whole[2:, 1] = zeroth
        return np.asarray(whole[np.ix_(free, free)])

    # A second-order method needs few iterations; each costs a pass over all samples, far more than a 30 x 30 system.
    point[free] = minimize(loss, point[free], jac=True, hess=curvature, method="trust-exact").x
    return [float(value) for value in point]
