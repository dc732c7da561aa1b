"""Blending the probabilities of several models: a mean of probabilities, logits or ranks, or learned weights."""

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
"""A model is dropped if its learned weight is below this fraction of an equal share."""


@dataclass(frozen=True)
class Blender:
    """A weighted mean over models.

    Attributes:
        kind: what is averaged: probabilities, ranks, or else logits.
        weights: (M,), non-negative, summing to 1.
        reference: (M, N, 28), the probabilities among which ranks are computed; other kinds do not use it.
    """

    kind: Blending
    weights: Doubles
    reference: Floats

    def apply(self, members: Floats) -> Singles:
        """Blend the probabilities of all models, (M, n, 28), to (n, 28)."""
        if self.kind == "probabilities":
            return mean(members, self.weights).astype(np.float32)
        if self.kind == "ranks":
            return mean_rank(members, self.reference, self.weights).astype(np.float32)
        return expit(mean(finite_logit(members), self.weights)).astype(np.float32)


def fit_blender(kind: Blending, members: Floats, truth: Bools, *, weight_l2: float) -> Blender:
    """Make a blender with equal weights or, for the kind ``weights`` (a mean of logits), learned ones.

    Args:
        kind: of the blend.
        members: (M, N, 28), probabilities of each model.
        truth: (N, 28).
        weight_l2: see `learn_weights`.
    """
    models = len(members)
    learned = kind == "weights" and models > 1
    weights = learn_weights(members, truth, weight_l2=weight_l2) if learned else np.full(models, 1 / models)
    return Blender(kind, weights, members)


def mean(members: Floats, weights: Doubles) -> Doubles:
    """The weighted mean over models, (N, 28), of (M, N, 28)."""
    return np.tensordot(weights, members.astype(np.float64), axes=1)


def mean_rank(members: Floats, reference: Floats, weights: Doubles) -> Doubles:
    """Average the ranks of each label's probabilities over models, and map the mean rank back to a probability.

    Only the order of a model's probabilities counts. The mean rank becomes the probability of the same rank in the mean
    of all models over the reference samples.

    Args:
        members: (M, n, 28), the probabilities to blend.
        reference: (M, N, 28), the probabilities among which ranks are computed.
        weights: (M,).
    """
    typical = np.sort(mean(reference, weights), axis=0)
    blended = np.empty(members.shape[1:])
    for label in range(members.shape[2]):
        ranks = np.zeros(members.shape[1])
        for weight, own, others in zip(weights, members[..., label], np.sort(reference[..., label]), strict=True):
            # Ties get the middle of their ranks.
            ranks += weight * (np.searchsorted(others, own) + np.searchsorted(others, own, side="right") - 1) / 2
        blended[:, label] = np.interp(ranks, np.arange(len(typical)), typical[:, label])
    return blended


def learn_weights(members: Floats, truth: Bools, *, weight_l2: float) -> Doubles:
    """Learn weights of the models' logits by logistic regression: (M,), non-negative, summing to 1.

    The regression (Wolpert, "Stacked Generalization", 1992, with the non-negativity of Breiman, "Stacked Regressions",
    1996) has one intercept for all labels and an L2 penalty towards equal weights, which matters with few samples.
    Models with less than half of an equal share are dropped and the others fitted again, so a model that does not help
    gets 0.

    Args:
        members: (M, N, 28).
        truth: (N, 28).
        weight_l2: strength of the penalty: its value, in nats, when the weights' standard deviation equals their mean.
            The likelihood grows with the number of samples, so with many of them the penalty hardly matters.
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
    """Non-negative logistic regression of (P,) targets on (M, P) logits: the weights divided by their sum, (M,).

    If all weights are 0, they are equal instead.
    """
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
