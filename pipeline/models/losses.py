"""Multi-label losses of logits (B, 28) and targets (B, 28); each returns a scalar and is computed in float32."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.core import params

TINY = torch.finfo(torch.float32).tiny
"""Lower limit of probabilities that are raised to a power: the gradient of ``x ** 0.5`` is infinite at 0."""
OVER_BATCH = frozenset[params.LossName]({"soft_f1", "lovasz"})
"""Losses that compare the samples of a batch: the loss of a batch is not the mean of its parts' losses."""
RAREST = 1e-3
"""Lower limit of label frequencies in the computation of label weights."""


def focal(
    logits: Tensor, targets: Tensor, *, gamma: float, alpha: float | None = None, weights: Tensor | None = None
) -> Tensor:
    """Sigmoid focal loss, averaged over samples and labels.

    Binary cross-entropy of each (sample, label), times ``(1 - p_t) ** gamma``, where ``p_t`` is the predicted
    probability of the truth; with ``alpha``, times ``alpha`` for positives and ``1 - alpha`` for negatives.

    Published solutions of this competition sum over the labels, which gives a loss that is 28 times larger: their
    learning rates do not fit this loss.

    Source: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017.

    Args:
        logits: (B, 28), any float type.
        targets: (B, 28), 0 to 1.
        gamma: focusing exponent; 0 gives binary cross-entropy.
        alpha: weight of positives, or None for no weighting.
        weights: (28,) weights of the labels.

    Returns:
        A scalar, float32.
    """
    logits, targets = logits.float(), targets.float()
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, weight=weights, reduction="none")
    # 1 - p_t is computed from sigmoids, which avoids cancellation for p_t close to 1.
    miss = targets * (-logits).sigmoid() + (1 - targets) * logits.sigmoid()
    loss = cross_entropy * miss.clamp_min(TINY) ** gamma
    if alpha is not None:
        loss = loss * (alpha * targets + (1 - alpha) * (1 - targets))
    return loss.mean()


def binary_cross_entropy(logits: Tensor, targets: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """Binary cross-entropy, averaged over samples and labels; ``weights`` (28,) are weights of the labels."""
    return F.binary_cross_entropy_with_logits(logits.float(), targets.float(), weight=weights)


def asymmetric(
    logits: Tensor,
    targets: Tensor,
    *,
    gamma_positive: float,
    gamma_negative: float,
    margin: float,
    weights: Tensor | None = None,
) -> Tensor:
    """Asymmetric loss, averaged over samples and labels: down-weights easy negatives and ignores the easiest.

    The loss of a positive is ``-(1 - p) ** gamma_positive * log(p)``, that of a negative is
    ``-q ** gamma_negative * log(1 - q)`` with ``q = max(p - margin, 0)``.

    Source: Ridnik et al., "Asymmetric Loss For Multi-Label Classification", ICCV 2021 (which uses 0, 4 and 0.05).

    Args:
        logits: (B, 28), any float type.
        targets: (B, 28), 0 to 1.
        gamma_positive: focusing exponent of positives.
        gamma_negative: focusing exponent of negatives.
        margin: probability below which the loss of a negative is 0.
        weights: (28,) weights of the labels.

    Returns:
        A scalar, float32.
    """
    logits, targets = logits.float(), targets.float()
    positive = -((-logits).sigmoid().clamp_min(TINY) ** gamma_positive) * F.logsigmoid(logits)
    complement = ((-logits).sigmoid() + margin).clamp_max(1)  # 1 - q
    # Without a margin it can be 0, and its logarithm is finite only if it is computed from the logit.
    focus = (1 - complement).clamp_min(TINY) ** gamma_negative
    negative = -focus * (complement.log() if margin else F.logsigmoid(-logits))
    loss = targets * positive + (1 - targets) * negative
    return (loss if weights is None else loss * weights).mean()


def soft_f1(logits: Tensor, targets: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """One minus the soft F1 of each label over the batch, averaged over labels.

    ``(2 tp + 1) / (2 tp + fp + fn + 1)``, with probabilities instead of decisions. The added ones make it 1 for a
    label that is neither present nor predicted in the batch. Without them, the loss would not depend on the false
    positives of a label that is not in the batch.

    Source: Milletari et al., "V-Net", 3DV 2016 (the Dice loss; Dice and F1 are the same).

    Args:
        logits: (B, 28), any float type.
        targets: (B, 28), 0 or 1.
        weights: (28,) weights of the labels.

    Returns:
        A scalar in [0, 1], float32.
    """
    probabilities, targets = logits.float().sigmoid(), targets.float()
    hits = (probabilities * targets).sum(dim=0)  # 28
    loss = 1 - (2 * hits + 1) / (probabilities.sum(dim=0) + targets.sum(dim=0) + 1)
    return (loss if weights is None else loss * weights).mean()


def lovasz(logits: Tensor, targets: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """Lovász hinge of each label over the batch, averaged over labels.

    The convex extension of the Jaccard loss ``1 - |truth & predicted| / |truth | predicted|``, applied to the hinge
    errors ``max(0, 1 - logit * sign)``: errors are sorted in descending order, and the weight of each is what it adds
    to the Jaccard loss.

    Source: Berman et al., "The Lovász-Softmax loss", CVPR 2018.

    Args:
        logits: (B, 28), any float type.
        targets: (B, 28), 0 or 1.
        weights: (28,) weights of the labels.

    Returns:
        A scalar, float32.
    """
    logits, targets = logits.float(), targets.float()
    errors, order = (1 - logits * (2 * targets - 1)).sort(dim=0, descending=True, stable=True)  # B, 28
    truth = targets.gather(0, order)
    found = truth.sum(dim=0) - truth.cumsum(dim=0)
    jaccard = 1 - found / (truth.sum(dim=0) + (1 - truth).cumsum(dim=0))
    added = torch.diff(jaccard, dim=0, prepend=torch.zeros_like(jaccard[:1]))
    loss = (errors.relu() * added).sum(dim=0)  # 28
    return (loss if weights is None else loss * weights).mean()


def smooth(targets: Tensor, share: float) -> Tensor:
    """Label smoothing: 0 and 1 become ``share / 2`` and ``1 - share / 2`` (Müller et al., NeurIPS 2019)."""
    return targets * (1 - share) + share / 2


def label_weights(prior: Tensor, balance: float) -> Tensor:
    """Weights of the labels, (28,), with mean 1: frequencies ``prior`` (28,) to the power of ``-balance``."""
    weights = prior.clamp_min(RAREST) ** -balance
    return weights / weights.mean()


def objective(model: params.NetworkModel, prior: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss function of a model: a weighted sum of losses.

    Label smoothing applies to the losses that are means over samples and labels. Soft F1 and Lovász compare sets of
    samples, and get the targets without smoothing.

    Args:
        model: section of the model; ``loss`` contains the names and weights of the losses.
        prior: (28,) share of training samples with each label, on the device of the logits.

    Returns:
        A function of logits and targets, (B, 28) each, that returns a scalar.
    """
    by_label = label_weights(prior, model.label_balance) if model.label_balance else None

    def part(name: params.LossName, logits: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
        """One of the losses."""
        softened = smooth(targets, model.label_smoothing)
        match name:
            case "focal":
                return focal(logits, softened, **dict(model.focal), weights=weights)
            case "bce":
                return binary_cross_entropy(logits, softened, weights=weights)
            case "asymmetric":
                return asymmetric(logits, softened, **dict(model.asymmetric), weights=weights)
            case "soft_f1":
                return soft_f1(logits, targets, weights=weights)
            case "lovasz":
                return lovasz(logits, targets, weights=weights)

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        targets = targets.float()
        parts = [share * part(name, logits, targets, by_label) for name, share in model.loss.items()]
        return torch.stack(parts).sum()

    return loss
