"""Several models' probabilities as one."""

from dataclasses import dataclass
from typing import get_args

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from pipeline.core.params import Blending
from pipeline.evaluation.calibration import Doubles, Singles, finite_logit
from pipeline.evaluation.metrics import Bools, Floats

BLENDINGS: tuple[Blending, ...] = get_args(Blending)

DROPPED = 0.5
"""A model whose learned weight is below this part of an equal share does not earn its keep."""


@dataclass(frozen=True)
class Blender:
    """A weighted mean over models.

    Attributes:
        kind: of what the mean is taken.
        weights: (M,), not negative, adding up to 1.
        reference: (M, N, 28), samples among which a probability has its rank; other kinds leave it alone.
    """

    kind: Blending
    weights: Doubles
    reference: Floats

    def apply(self, members: Floats) -> Singles:
        """The blend, (n, 28), of the probabilities of all models, (M, n, 28)."""
        if self.kind == "probabilities":
            return mean(members, self.weights).astype(np.float32)
        if self.kind == "ranks":
            return mean_rank(members, self.reference, self.weights).astype(np.float32)
        return expit(mean(finite_logit(members), self.weights)).astype(np.float32)


def fit_blender(kind: Blending, members: Floats, truth: Bools, *, weight_l2: float) -> Blender:
    """Equal weights, or for the kind ``weights`` (a mean of logits) those that these samples ask for.

    Args:
        kind: of the blend.
        members: (M, N, 28).
        truth: (N, 28).
        weight_l2: see `learn_weights`.
    """
    models = len(members)
    learned = kind == "weights" and models > 1
    weights = learn_weights(members, truth, weight_l2=weight_l2) if learned else np.full(models, 1 / models)
    return Blender(kind, weights, members)


def mean(members: Floats, weights: Doubles) -> Doubles:
    """The weighted mean, (N, 28), over the first axis."""
    return np.tensordot(weights, members.astype(np.float64), axes=1)


def mean_rank(members: Floats, reference: Floats, weights: Doubles) -> Doubles:
    """The mean over models of a probability's rank, as the probability that has this rank in the mean of all models.

    So models are averaged by their order alone, and the result reads as a probability.

    Args:
        members: (M, n, 28), what is blended.
        reference: (M, N, 28), among which ranks are taken.
        weights: (M,).
    """
    typical = np.sort(mean(reference, weights), axis=0)
    blended = np.empty(members.shape[1:])
    for label in range(members.shape[2]):
        ranks = np.zeros(members.shape[1])
        for weight, own, others in zip(weights, members[..., label], np.sort(reference[..., label]), strict=True):
            # Equal probabilities have the middle of their ranks.
            ranks += weight * (np.searchsorted(others, own) + np.searchsorted(others, own, side="right") - 1) / 2
        blended[:, label] = np.interp(ranks, np.arange(len(typical)), typical[:, label])
    return blended


def learn_weights(members: Floats, truth: Bools, *, weight_l2: float) -> Doubles:
    """Weights of the models' logits by logistic regression, (M,), not negative and adding up to 1.

    The regression (Wolpert, "Stacked Generalization", 1992, with Breiman's constraint of 1996) has one offset
    for all labels and is pulled towards equal weights, which matters while samples are few. A model that gets
    less than half of an equal share is dropped, and the others are weighted anew; so one that does not help has 0.

    Args:
        members: (M, N, 28).
        truth: (N, 28).
        weight_l2: nats that a spread of the weights as large as their mean costs; fades against many samples.
    """
    logits = finite_logit(members).reshape(len(members), -1)
    targets = truth.ravel().astype(np.float64)
    kept = np.arange(len(members))
    while True:
        weights = regress(logits[kept], targets, weight_l2)
        enough = weights >= DROPPED / len(kept)
        if enough.all():
            shares = np.zeros(len(members))
            shares[kept] = weights
            return shares
        kept = kept[enough]


def regress(logits: Doubles, targets: Doubles, weight_l2: float) -> Doubles:
    """Non-negative logistic regression of (P,) targets on (M, P) logits: its weights as shares, equal if all are 0."""
    models = len(logits)

    def loss(values: Doubles) -> tuple[float, Doubles]:
        weights, offset = values[:-1], values[-1]
        scores = weights @ logits + offset
        excess = expit(scores) - targets
        uneven = weights - weights.mean()
        value = np.sum(np.logaddexp(0, scores) - targets * scores) + weight_l2 * models * np.sum(uneven**2)
        return float(value), np.append(logits @ excess + 2 * weight_l2 * models * uneven, excess.sum())

    start = np.append(np.full(models, 1 / models), 0.0)
    bounds = [(0.0, None)] * models + [(None, None)]
    found = np.maximum(minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x[:-1], 0)
    return found / found.sum() if found.sum() > 0 else np.full(models, 1 / models)
