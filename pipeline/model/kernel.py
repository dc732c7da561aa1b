"""A head that is solved for instead of trained: kernel ridge regression on the features of a frozen network."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.labels import LABELS

RIDGE = 0.1
"""What is added to the kernel's diagonal; on real cells anything from 0.03 to 1 does alike (docs/measurements.md)."""
KNOTS = 33
"""Quantiles that a feature's distribution is remembered by."""
SHARPNESS = 50.0
"""How abruptly a solution below 0 or above 1 is held back."""
EMPTY = 1e-12
"""Variance of a feature map that is the same everywhere; keeps the gradient of its root finite."""


class KernelHead(nn.Module):
    """Least squares on similarities to the training samples: ``p(x) = share + sum over n of weight[n] k(x, x_n)``.

    Each feature is first replaced by the normal score of its rank among the training samples, so that features of any
    scale and skew count alike. ``k(u, v) = exp(-|u - v|² / m)`` with m the median of ``|u - v|²`` over pairs of
    training samples. The weights solve ``(K + RIDGE I) weight = targets - share``, in closed form and for all labels at
    once. The solution estimates the probability; its logit is handed on, held inside 0..1 by a soft clip that
    leaves it a gradient everywhere.

    Sources: Saunders, Gammerman and Vovk, "Ridge regression learning algorithm in dual variables", ICML 1998; Garreau,
    Jitkrittum and Kanagawa, "Large sample analysis of the median heuristic", arXiv 1707.07269; normal scores after
    van der Waerden, 1952.
    """

    knots: Tensor
    scores: Tensor
    points: Tensor
    weight: Tensor
    share: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("knots", torch.zeros(KNOTS, 0))  # quantiles of each of F features, rising
        self.register_buffer("scores", torch.zeros(KNOTS))  # normal scores of the knots
        self.register_buffer("points", torch.zeros(0, 0))  # N training samples in normal scores, (N, F)
        self.register_buffer("weight", torch.zeros(0, len(LABELS)))
        self.register_buffer("share", torch.zeros(len(LABELS)))
        self.register_buffer("spread", torch.ones(()))  # m

    @torch.no_grad()
    def solve(self, features: Tensor, targets: Tensor) -> None:
        """Fit to (N, F) features with (N, 28) targets, 0 or 1; takes 8 N² bytes some three times over."""
        features, targets = features.double().cpu(), targets.double().cpu()
        quantiles = np.linspace(0, 1, KNOTS)
        inside = quantiles.clip(0.5 / len(features), 1 - 0.5 / len(features))
        self.knots = torch.from_numpy(np.quantile(features.numpy(), quantiles, axis=0))
        self.scores = torch.special.ndtri(torch.from_numpy(inside))
        self.points = self._normal_scores(features)
        self.share = targets.mean(dim=0)
        self.spread = torch.pdist(self.points).square().median().clamp_min(EMPTY)
        similar = self._similarity(self.points)
        similar.diagonal().add_(RIDGE)
        self.weight = torch.cholesky_solve(targets - self.share, torch.linalg.cholesky(similar))
        self.float()

    def forward(self, features: Tensor) -> Tensor:
        """(B, F) to logits (B, 28)."""
        with torch.autocast(features.device.type, enabled=False):  # half precision would lose the small distances
            similar = self._similarity(self._normal_scores(features.float()))  # B, N
            p = self.share + similar @ self.weight
        p, rest = F.softplus(p, beta=SHARPNESS), F.softplus(1 - p, beta=SHARPNESS)
        return p.log() - rest.log()

    def _similarity(self, x: Tensor) -> Tensor:
        return torch.exp(-torch.cdist(x, self.points).square() / self.spread)

    def _normal_scores(self, features: Tensor) -> Tensor:
        """Interpolate between the knots; what lies outside them has the outermost score."""
        by_feature = self.knots.T.contiguous()  # F, KNOTS
        x = features.T.contiguous()  # F, B
        after = torch.searchsorted(by_feature, x, right=True).clamp(1, KNOTS - 1)
        low, high = by_feature.gather(1, after - 1), by_feature.gather(1, after)
        way = ((x - low) / (high - low).clamp_min(torch.finfo(x.dtype).tiny)).clamp(0, 1)
        return (self.scores[after - 1] + way * (self.scores[after] - self.scores[after - 1])).T

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *others: Any) -> None:
        # How many features and samples there are stands in the file alone.
        for name in ("knots", "points", "weight"):
            if (stored := state_dict.get(prefix + name)) is not None:
                setattr(self, name, torch.empty_like(stored, device=getattr(self, name).device))
        super()._load_from_state_dict(state_dict, prefix, *others)


def pool_stages(stages: Iterable[Tensor]) -> Tensor:
    """Mean, spread and maximum over the positions of each of some feature maps (B, C, H, W), joined: (B, F)."""
    return torch.cat([torch.cat(_pooled(stage.float()), dim=1) for stage in stages], dim=1)


def _pooled(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    var, mean = torch.var_mean(x, dim=(2, 3), correction=0)
    return mean, var.clamp_min(EMPTY).sqrt(), x.amax(dim=(2, 3))
