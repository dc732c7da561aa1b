"""Scores of probabilities without decision thresholds: average precision, or cross-entropy at a fitted temperature.

The losses that a space can contain (focal, asymmetric) distort probabilities on purpose, each in its own way. Without
a temperature, cross-entropy would rank the losses and not the models.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pipeline.core.params import Objective
from pipeline.core.params import Score as Bootstrap
from pipeline.evaluation.calibration import Calibration, finite_logit, fit_calibration
from pipeline.evaluation.metrics import Bools, Floats, binary_cross_entropy
from pipeline.evaluation.ranking import Doubles, group_weights, mean_average_precision


@dataclass(frozen=True)
class Predicted:
    """Predictions of samples that the networks did not train on.

    Attributes:
        probabilities: (N, L).
        truth: (N, L).
        groups: (N,).
        folds: (N,).
    """

    probabilities: Floats
    truth: Bools
    groups: npt.NDArray[np.str_]
    folds: npt.NDArray[np.int64]


def calibrated_loss(probabilities: Floats, truth: Bools) -> float:
    """Cross-entropy (nats per sample and label) at the temperature that fits best; for the pruner.

    Args:
        probabilities: (N, L).
        truth: (N, L).
    """
    return binary_cross_entropy(_temperature(probabilities, truth).apply(probabilities), truth)


def comparable(objective: Objective, inner: Predicted) -> Predicted:
    """Out-of-fold predictions as they are scored: for the loss, at the temperature fitted on the other folds."""
    if objective != "loss":
        return inner
    found = np.empty_like(inner.probabilities)
    for fold in np.unique(inner.folds):
        own, others = inner.folds == fold, inner.folds != fold
        fitted = _temperature(inner.probabilities[others], inner.truth[others])
        found[own] = fitted.apply(inner.probabilities[own])
    return replace(inner, probabilities=found)


def comparable_outer(objective: Objective, outer: Predicted, inner: Predicted) -> Predicted:
    """Predictions of the outer fold as they are scored: for the loss, at the temperature of the inner folds."""
    if objective != "loss":
        return outer
    fitted = _temperature(inner.probabilities, inner.truth)
    return replace(outer, probabilities=fitted.apply(outer.probabilities))


def score(objective: Objective, predicted: Predicted) -> float:
    """The score of all samples; higher is better, so a loss is negative."""
    return float(_weighted(objective, predicted, np.ones((1, len(predicted.truth))))[0])


def resampled(objective: Objective, predicted: Sequence[Predicted], settings: Bootstrap) -> Doubles:
    """The scores of several predictions of the same samples in the same bootstrap resamples of the groups, (P, B)."""
    drawn = group_weights(predicted[0].groups, resamples=settings.resamples, seed=settings.seed)
    return np.concatenate([[_weighted(objective, one, weights) for one in predicted] for weights in drawn], axis=1)


def _weighted(objective: Objective, predicted: Predicted, weights: Doubles) -> Doubles:
    """The score with weighted samples, (B,), for weights (B, N)."""
    if objective == "average_precision":
        return mean_average_precision(predicted.probabilities, predicted.truth, weights)
    logits = finite_logit(predicted.probabilities)
    losses = np.logaddexp(0, np.where(predicted.truth, -logits, logits)).mean(axis=1)
    return np.asarray(-(weights @ losses) / weights.sum(axis=1))


def _temperature(probabilities: Floats, truth: Bools) -> Calibration:
    return fit_calibration("temperature", probabilities, truth, offset_sd=0)
