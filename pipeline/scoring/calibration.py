"""Probabilities that mean what they say: temperature and Platt scaling."""

from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit, logit

from pipeline.params import Calibrating
from pipeline.scoring.metrics import Bools, Floats

SMALLEST = 1e-7
"""Probabilities this near to 0 or 1 have no finite logit in single precision."""

Doubles = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]

CALIBRATIONS: tuple[Calibrating, ...] = get_args(Calibrating)


def finite_logit(probabilities: Floats) -> Doubles:
    """Logits in double precision, those of 0 and 1 made finite."""
    logits: Doubles = logit(np.clip(probabilities.astype(np.float64), SMALLEST, 1 - SMALLEST))
    return logits


@dataclass(frozen=True)
class Calibration:
    """What turns a logit into one that can be believed: ``slope * logit + offset``.

    Attributes:
        slope: shared by all labels.
        offsets: (28,).
    """

    slope: float
    offsets: Doubles

    def apply(self, probabilities: Floats) -> Singles:
        """Calibrated probabilities, (N, 28), from uncalibrated ones."""
        return expit(self.slope * finite_logit(probabilities) + self.offsets).astype(np.float32)


def fit_calibration(kind: Calibrating, probabilities: Floats, truth: Bools, *, spread: float) -> Calibration:
    """Fit by maximum likelihood.

    ``temperature`` is one slope (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017).
    ``platt`` adds offsets (Platt, "Probabilistic Outputs for Support Vector Machines", 1999): a label's own
    comes from a normal distribution around the shared one, so that a rare label borrows from the others.

    Args:
        kind: ``none`` leaves the probabilities as they are.
        probabilities: (N, 28).
        truth: (N, 28).
        spread: standard deviation of the labels' offsets, in logits; 0 leaves the shared one alone.
    """
    labels = truth.shape[1]
    if kind == "none":
        return Calibration(1.0, np.zeros(labels))
    logits, targets = finite_logit(probabilities), truth.astype(np.float64)
    free = np.array([True, kind == "platt", *[kind == "platt" and spread > 0] * labels])
    precision = np.array([0.0, 0.0, *[1 / spread**2 if spread > 0 else 0.0] * labels])[free]
    point = np.zeros(2 + labels)
    point[0] = 1.0

    def loss(values: Doubles) -> tuple[float, Doubles]:
        point[free] = values
        scores = point[0] * logits + (point[1] + point[2:])
        excess = expit(scores) - targets
        by_label = excess.sum(axis=0)
        slopes = np.array([np.sum(excess * logits), by_label.sum(), *by_label])[free]
        value = np.sum(np.logaddexp(0, scores) - targets * scores) + np.sum(precision * values**2) / 2
        return float(value), slopes + precision * values

    def curvature(values: Doubles) -> Doubles:
        point[free] = values
        confident = expit(point[0] * logits + (point[1] + point[2:]))
        weights = confident * (1 - confident)
        zeroth, first = weights.sum(axis=0), (weights * logits).sum(axis=0)
        whole = np.diag([np.sum(weights * logits**2), zeroth.sum(), *zeroth])
        whole[0, 1:] = whole[1:, 0] = [first.sum(), *first]
        whole[1, 2:] = whole[2:, 1] = zeroth
        return whole[np.ix_(free, free)] + np.diag(precision)

    # A second-order method: with 31,072 samples each look at the data costs more than solving for 30 numbers.
    point[free] = minimize(loss, point[free], jac=True, hess=curvature, method="trust-exact").x
    return Calibration(float(point[0]), point[1] + point[2:])
