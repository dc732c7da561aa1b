"""Heads from feature maps to 28 logits: pooling, attention with label queries, and kernel ridge regression."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.core.errors import InputError
from pipeline.core.labels import LABELS
from pipeline.models.shared_batch import Dropout, SampleRandom

HEADS = 4
"""Attention heads of the label queries."""

RIDGE = 0.1
"""Added to the kernel matrix's diagonal. On real images, values from 0.03 to 1 give about the same score."""
KNOTS = 33
"""Number of quantiles that represent a feature's distribution."""
SHARPNESS = 200.0
"""Sharpness of the soft clip of predictions to 0..1: exactly 0 becomes ``ln 2 / SHARPNESS``, which is 0.003."""
POOLINGS = 3
"""Pooled features per channel: mean, standard deviation and maximum."""
EMPTY = 1e-12
"""Lower limit of variances, which keeps the gradient of their square root finite."""


class PooledHead(nn.Module):
    """Average and maximum over positions, concatenated, then dropout and one linear layer, in float32.

    A location may be one bright spot in the image, which the average loses; therefore the maximum as well.
    """

    def __init__(self, channels: int, dropout: float) -> None:
        """Initialise random weights, for a feature map with a number of channels."""
        super().__init__()
        self.dropout = Dropout(dropout)
        self.linear = nn.Linear(2 * channels, len(LABELS))

    @property
    def bias(self) -> nn.Parameter:
        """Of the logits, (28,)."""
        return self.linear.bias

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Feature maps (B, C_i, H_i, W_i), of which the last one is used, to logits (B, 28)."""
        pooled = torch.cat([levels[-1].mean((2, 3)), levels[-1].amax((2, 3))], dim=1)
        with torch.autocast(pooled.device.type, enabled=False):  # see LabelQueries
            logits: Tensor = self.linear(self.dropout(pooled.float()))
        return logits

    @torch.no_grad()
    def contributions(self, levels: Sequence[Tensor], labels: Tensor) -> Tensor:
        """What each position contributes to the logit of a label, which is their sum and the bias.

        Args:
            levels: as in ``forward``.
            labels: (B,), one for each image.

        Returns:
            (B, H, W).
        """
        x = levels[-1].float()
        of_mean, of_highest = self.linear.weight[labels].chunk(2, dim=1)  # B, C each
        flat = x.flatten(2)
        highest, where = flat.max(dim=2)
        found = torch.einsum("bc,bcp->bp", of_mean, flat) / flat.shape[2]
        return found.scatter_add(1, where, of_highest * highest).view(len(x), *x.shape[2:])


class Pyramid(nn.Module):
    """Feature pyramid: maps of the last stages with the same channels, each with all coarser stages added.

    ``T[i] = lateral(C[i]) + enlarge(T[i + 1])`` and ``P[i] = smooth(T[i])``, with 1x1 lateral and 3x3 smoothing
    convolutions and enlargement by the nearest position. The last stage sees what is around, the finer ones see where
    it is.

    Source: Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017.
    """

    def __init__(self, inputs: Sequence[int], channels: int) -> None:
        """Initialise random weights.

        Args:
            inputs: channels of the stages, finest first.
            channels: channels of every level.
        """
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in inputs)
        self.smooth = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in inputs)

    def forward(self, stages: Sequence[Tensor]) -> list[Tensor]:
        """Feature maps (B, C_i, H_i, W_i), finest first, to as many levels (B, channels, H_i, W_i)."""
        own = [lateral(stage) for lateral, stage in zip(self.lateral, stages, strict=True)]
        sums = own[-1:]
        for level in reversed(own[:-1]):
            sums.insert(0, level + F.interpolate(sums[0], level.shape[-2:]))
        return [smooth(level) for smooth, level in zip(self.smooth, sums, strict=True)]


class LabelQueries(nn.Module):
    """One learned query per label attends to the positions of one or more feature maps.

    ``K = V = LayerNorm(x) + level``, ``found = MultiHead(Q = labels, K, V)``,
    ``logit[l] = weight[l] · found[l] + bias[l]``, in float32 also under autocast, because bfloat16 has only three
    significant digits and would make the logits of many samples equal. The attention map of a label is its attention
    to the positions, averaged over the four heads; its values are not negative and add up to 1.

    Positions are not encoded: a field of view has no preferred place or orientation.

    With hard attention, each head of a query sees a single position in training, drawn with the probability of its
    attention; the gradient is that of soft attention (straight-through). Predictions use the expectation over the
    draws, which is soft attention.

    Sources: Liu et al., "Query2Label", arXiv 2107.10834 (labels as queries), without its self-attention between
    labels, its feed-forward layers and its position encoding; Xu et al., "Show, Attend and Tell", ICML 2015 (hard
    attention), with the estimator of Bengio et al., arXiv 1308.3432, in place of its score function.
    """

    def __init__(self, channels: int, levels: int, dropout: float, *, hard: bool = False) -> None:
        """Initialise random weights.

        Args:
            channels: number of channels of the feature maps, a multiple of 4.
            levels: number of feature maps.
            dropout: dropout rate of the attended features.
            hard: hard attention in training.

        Raises:
            InputError: the channels cannot be divided among the heads.
        """
        super().__init__()
        if channels % HEADS:
            raise InputError(
                f"params.yaml: head label_queries: its features need a multiple of {HEADS} channels, not {channels}"
            )
        self.norm = nn.LayerNorm(channels)
        self.level = nn.Parameter(torch.zeros(levels, channels))
        self.queries = nn.Parameter(torch.randn(len(LABELS), channels) * channels**-0.5)
        self.attend = nn.MultiheadAttention(channels, HEADS, batch_first=True)
        self.hard = hard
        self.draw = SampleRandom()
        self.dropout = Dropout(dropout)
        self.weight = nn.Parameter(torch.randn(len(LABELS), channels) * channels**-0.5)
        self.bias = nn.Parameter(torch.zeros(len(LABELS)))

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Feature maps (B, C, H_i, W_i) to logits (B, 28)."""
        with torch.autocast(levels[0].device.type, enabled=False):
            if self.hard and self.training:
                found = self._attend_to_draws(levels)
            else:
                found, _ = self._attend(levels, need_weights=False)  # B, 28, C
            logits: Tensor = (self.dropout(found) * self.weight).sum(dim=-1) + self.bias
        return logits

    def maps(self, levels: Sequence[Tensor]) -> Tensor:
        """Attention maps of the labels, at the finest level: (B, 28, H_0, W_0), each adding up to 1.

        The attention to a position of a coarser level is distributed evenly over the positions it covers.
        """
        with torch.autocast(levels[0].device.type, enabled=False):
            _, weights = self._attend(levels, need_weights=True)  # B, 28, positions
        assert weights is not None  # for the type checker: they were requested
        height, width = levels[0].shape[-2:]
        parts = torch.split(weights, [level.shape[-2:].numel() for level in levels], dim=-1)
        total = torch.zeros(*weights.shape[:2], height, width, device=weights.device)
        for part, level in zip(parts, levels, strict=True):
            share = part.reshape(*part.shape[:2], *level.shape[-2:])
            fine = F.interpolate(share, (height, width))
            total += fine * (part.sum(-1) / fine.sum((-2, -1)).clamp_min(EMPTY))[..., None, None]
        return total

    def position_logits(self, levels: Sequence[Tensor]) -> Tensor:
        """The logits if every query attended to a single position of the finest level: (B, 28, H_0, W_0).

        The logits of ``forward`` are means of these over all positions of all levels, weighted by each head's
        attention. They can be trained directly where it is known which positions show a label.
        """
        height, width = levels[0].shape[-2:]
        with torch.autocast(levels[0].device.type, enabled=False):
            places = self._places(levels[0], 0)
            values = F.linear(places, self.attend.in_proj_weight.chunk(3)[2], self.attend.in_proj_bias.chunk(3)[2])
            project = self.attend.out_proj
            logits = F.linear(values, self.weight @ project.weight, self.weight @ project.bias + self.bias)
        return logits.transpose(1, 2).reshape(len(logits), -1, height, width)

    def _attend(self, levels: Sequence[Tensor], *, need_weights: bool) -> tuple[Tensor, Tensor | None]:
        every = torch.cat([self._places(level, number) for number, level in enumerate(levels)], dim=1)
        queries = self.queries.expand(len(every), -1, -1)  # B, 28, C
        found: tuple[Tensor, Tensor | None] = self.attend(queries, every, every, need_weights=need_weights)
        return found

    def _attend_to_draws(self, levels: Sequence[Tensor]) -> Tensor:
        """What each query finds, (B, 28, C), if each of its heads sees one position."""
        every = torch.cat([self._places(level, number) for number, level in enumerate(levels)], dim=1)
        weights, biases = self.attend.in_proj_weight.chunk(3), self.attend.in_proj_bias.chunk(3)
        queries = F.linear(self.queries, weights[0], biases[0]).view(len(LABELS), HEADS, -1)
        keys, values = (  # B, positions, heads, C / heads
            F.linear(every, weights[part], biases[part]).view(*every.shape[:2], HEADS, -1) for part in (1, 2)
        )
        logits = torch.einsum("lhc,bphc->bhlp", queries, keys) * queries.shape[-1] ** -0.5
        soft = logits.softmax(dim=-1)
        # The maximum of logits with Gumbel noise is a draw from their softmax.
        noise = -(-self.draw.uniform(logits, *logits.shape[1:]).log()).log()
        drawn = F.one_hot((logits.detach() + noise).argmax(dim=-1), logits.shape[-1]).to(soft.dtype)
        found = torch.einsum("bhlp,bphc->blhc", drawn + soft - soft.detach(), values).flatten(2)
        return F.linear(found, self.attend.out_proj.weight, self.attend.out_proj.bias)

    def _places(self, level: Tensor, number: int) -> Tensor:
        """A feature map (B, C, H, W) as keys and values, (B, H W, C)."""
        places: Tensor = self.norm(level.float().flatten(2).transpose(1, 2)) + self.level[number]
        return places


class KernelHead(nn.Module):
    """Kernel ridge regression: ``p(x) = share + sum over n of weight[n] k(x, x_n)`` over training samples ``x_n``.

    Each feature is first replaced by the normal score of its rank among the training samples, so that features of any
    scale and skew have the same influence. ``k(u, v) = exp(-|u - v|² / m)``, where m is the median of ``|u - v|²`` over
    pairs of training samples. The weights are the solution of ``(K + RIDGE I) weight = targets - share``, in closed
    form for all labels at once. ``p`` estimates the probability. The head returns its logit, after a soft clip to 0..1
    that has a gradient everywhere.

    Sources: Saunders, Gammerman and Vovk, "Ridge regression learning algorithm in dual variables", ICML 1998; Garreau,
    Jitkrittum and Kanagawa, "Large sample analysis of the median heuristic", arXiv 1707.07269; van der Waerden, "Order
    tests for the two-sample problem and their power", 1952 (normal scores).
    """

    knots: Tensor
    ranks: Tensor
    points: Tensor
    weight: Tensor
    share: Tensor
    spread: Tensor

    def __init__(self, features: int) -> None:
        """Create an unfitted head for a number of features."""
        super().__init__()
        self.register_buffer("knots", torch.zeros(KNOTS, features))  # quantiles of each feature, ascending
        self.register_buffer("ranks", torch.zeros(KNOTS))  # of the knots, as fractions of the samples in (0, 1)
        self.register_buffer("points", torch.zeros(0, features))  # N training samples in normal scores
        self.register_buffer("weight", torch.zeros(0, len(LABELS)))
        self.register_buffer("share", torch.zeros(len(LABELS)))
        self.register_buffer("spread", torch.ones(()))  # m

    @torch.no_grad()
    def fit(self, features: Tensor, targets: Tensor) -> None:
        """Fit to features (N, F) and targets (N, 28), 0 or 1, on the CPU in double precision.

        Needs the memory of three N x N matrices and about a dozen copies of the features.
        """
        device = self.share.device
        features, targets = features.double().cpu(), targets.double().cpu()
        quantiles = np.linspace(0, 1, KNOTS)
        inside = quantiles.clip(0.5 / len(features), 1 - 0.5 / len(features))
        self.knots = torch.from_numpy(np.quantile(features.numpy(), quantiles, axis=0))
        self.ranks = torch.from_numpy(inside)
        self.points = self._normal_scores(features)
        self.share = targets.mean(dim=0)
        self.spread = torch.pdist(self.points).square().median().clamp_min(EMPTY)
        kernel = self._similarity(self.points)
        kernel.diagonal().add_(RIDGE)
        self.weight = torch.cholesky_solve(targets - self.share, torch.linalg.cholesky(kernel))
        self.to(device, torch.float32)

    def forward(self, features: Tensor) -> Tensor:
        """(B, F) to logits (B, 28)."""
        with torch.autocast(features.device.type, enabled=False):  # half precision is too coarse for small distances
            similar = self._similarity(self._normal_scores(features.float()))  # B, N
            p = self.share + similar @ self.weight
        return _log_softplus(SHARPNESS * p) - _log_softplus(SHARPNESS * (1 - p))

    def _similarity(self, x: Tensor) -> Tensor:
        return torch.exp(-torch.cdist(x, self.points).square() / self.spread)

    def _normal_scores(self, features: Tensor) -> Tensor:
        """Normal scores of features (B, F).

        Ranks are interpolated between knots, averaged over ties, and clipped to those of the outermost knots.
        """
        knots, x = self.knots.T.contiguous(), features.T.contiguous()  # F, KNOTS; F, B
        below = (torch.searchsorted(knots, x, right=True) - 1).clamp_min(0)  # the last knot not above x
        above = torch.searchsorted(knots, x).clamp_max(KNOTS - 1)  # the first one not below it
        low, high = knots.gather(1, below), knots.gather(1, above)
        between = high > low
        way = torch.where(between, (x - low) / torch.where(between, high - low, 1), 0.5)
        scores: Tensor = torch.special.ndtri(torch.lerp(self.ranks[below], self.ranks[above], way))
        return scores.T

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *others: Any) -> None:
        # Only the file determines the number of training samples.
        if (stored := state_dict.get(f"{prefix}points")) is not None:
            samples = max(stored.shape[:1].numel(), 1)
            self.points = self.points.new_empty(samples, self.points.shape[1])
            self.weight = self.weight.new_empty(samples, len(LABELS))
        super()._load_from_state_dict(state_dict, prefix, *others)


def pool_stages(stages: Iterable[Tensor]) -> Tensor:
    """Concatenate mean, standard deviation and maximum over the positions of feature maps (B, C, H, W): (B, F)."""
    return torch.cat([torch.cat(_pooled(stage.float()), dim=1) for stage in stages], dim=1)


def _pooled(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    var, mean = torch.var_mean(x, dim=(2, 3), correction=0)
    return mean, var.clamp_min(EMPTY).sqrt(), x.amax(dim=(2, 3))


def _log_softplus(x: Tensor) -> Tensor:
    """``log(log(1 + exp(x)))``, which is x for very negative x, where the exponential underflows in float32."""
    return torch.where(x < -10, x, F.softplus(x.clamp_min(-10)).log())
