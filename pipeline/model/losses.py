"""Losses over logits (B, 28) and targets (B, 28)."""

from torch import Tensor
from torch.nn import functional as F


def focal(logits: Tensor, targets: Tensor, *, gamma: float, alpha: float | None = None) -> Tensor:
    """Sigmoid focal loss, averaged over samples AND labels.

    Binary cross-entropy of each (sample, label), times ``(1 - p_t) ** gamma`` where ``p_t`` is the probability
    given to the truth; with ``alpha``, times ``alpha`` for positives and ``1 - alpha`` for negatives.
    Published solutions of this competition also sum over the labels, which is 28 times larger: a learning
    rate tuned for one does not fit the other.

    Source: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017.

    Args:
        logits: (B, 28), any float type; computed in float32.
        targets: (B, 28), 0 or 1.
        gamma: 0 is plain binary cross-entropy.
        alpha: weight of the positives, or None for no weighting.

    Returns:
        A scalar, float32.
    """
    logits, targets = logits.float(), targets.float()
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    # 1 - p_t, as a sigmoid: no cancellation where p_t is close to 1.
    miss = (logits * (1 - 2 * targets)).sigmoid()
    loss = cross_entropy * miss**gamma
    if alpha is not None:
        loss = loss * (alpha * targets + (1 - alpha) * (1 - targets))
    return loss.mean()
