"""Trained networks in a form that can be exported to ONNX with a dynamic batch size; the same numbers in float32."""

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models import attention, heads, pooling
from pipeline.models.heads import KNOTS, SHARPNESS, KernelHead
from pipeline.models.network import MIN_STD, Network, Normalise

# Coefficients, lowest power first, of the rational functions of AS 241's PPND7, near the median and in the tails.
_CENTRE = (3.3871327179, 50.434271938, 159.29113202, 59.109374720), (1.0, 17.895169469, 78.757757664, 67.187563600)
_TAIL = (1.4234372777, 2.7568153900, 1.3067284816, 0.17023821103), (1.0, 0.73700164250, 0.12021132975)


class ExactNormalise(Normalise):
    """``Normalise`` with sums in double precision.

    onnxruntime adds up the pixels of a channel one by one, which in float32 changes the normalised pixels of an image
    of 512 px by up to 8e-5 of their value. Sums of whole numbers are exact in double precision.
    """

    def __init__(self, of: Normalise) -> None:
        super().__init__("image" if of.per_image else "dataset", of.gain)
        self.load_state_dict(of.state_dict())
        self.train(of.training)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 4, H, W) float32, whole values from 0 to 255, to (B, 4, H, W) float32."""
        if not self.per_image:
            return super().forward(images)
        exact = images.double()
        mean = exact.mean((2, 3), keepdim=True)  # B, 4, 1, 1
        std = (exact.square().mean((2, 3), keepdim=True) - mean.square()).clamp_min(0).sqrt() / 255
        return (images / 255 - (mean / 255).float()) * (1 / std.clamp_min(MIN_STD)).float()


class Probabilities(nn.Module):
    """A copy of a trained network on the CPU, from images to probabilities, of one view."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).cpu()
        self.network.normalise = ExactNormalise(self.network.normalise)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 4, S, S) float32, whole values from 0 to 255, to probabilities (B, 28)."""
        network = self.network
        if network.kernel is None:
            logits: Tensor = network(images)
        else:
            logits = kernel_logits(network.kernel, network.head_features(images))
        return logits.sigmoid()


def kernel_logits(head: KernelHead, features: Tensor) -> Tensor:
    """``KernelHead`` without what ONNX lacks: binary search, the inverse normal distribution, and ``cdist``.

    Args:
        head: fitted.
        features: (B, F).

    Returns:
        (B, 28).
    """
    scores, points = _normal_scores(head, features), head.points
    squares = scores.square().sum(1, keepdim=True) + points.square().sum(1) - 2 * scores @ points.T
    p = head.share + torch.exp(-squares.clamp_min(0) / head.spread) @ head.weight
    return heads._log_softplus(SHARPNESS * p) - heads._log_softplus(SHARPNESS * (1 - p))


def _normal_scores(head: KernelHead, features: Tensor) -> Tensor:
    knots, x = head.knots, features[:, None]  # KNOTS, F; B, 1, F
    below = ((knots <= x).sum(1) - 1).clamp_min(0)  # B, F
    above = (knots < x).sum(1).clamp_max(KNOTS - 1)
    low, high = knots.gather(0, below), knots.gather(0, above)
    between = high > low
    way = torch.where(between, (features - low) / torch.where(between, high - low, 1.0), 0.5)
    return inverse_normal(torch.lerp(head.ranks[below], head.ranks[above], way))


def inverse_normal(p: Tensor) -> Tensor:
    """The quantiles of the standard normal distribution, for probabilities between 1e-11 and 1 - 1e-11.

    Source: Wichura, "Algorithm AS 241: The Percentage Points of the Normal Distribution", Applied Statistics 1988;
    its version with about 7 figures.
    """
    centre = p - 0.5
    near = centre * _ratio(0.180625 - centre.square(), *_CENTRE)
    tail = torch.minimum(p, 1 - p).clamp_min(1e-11).log().neg().sqrt()
    far = torch.sign(centre) * _ratio(tail - 1.6, *_TAIL)
    return torch.where(centre.abs() <= 0.425, near, far)


@contextmanager
def exportable_operations() -> Iterator[None]:
    """While the block runs, the models' code uses operations that can be exported.

    - ``len(tensor)`` is a symbol of the graph. Python's own ``len`` returns an integer, which would fix the batch size
      to that of the example.
    - Attention without heads (``NonLocal``) is attention with one head, since the exporter knows no other.
    """
    attend = F.scaled_dot_product_attention

    def length(of: Any) -> Any:
        return of.shape[0] if isinstance(of, Tensor) else len(of)

    def attend_with_heads(query: Tensor, key: Tensor, value: Tensor, *others: Any, **named: Any) -> Tensor:
        if query.ndim > 3:
            return attend(query, key, value, *others, **named)
        return attend(query[:, None], key[:, None], value[:, None], *others, **named)[:, 0]

    with ExitStack() as stack:
        for module in (attention, heads, pooling):
            stack.enter_context(mock.patch.object(module, "len", length, create=True))
        stack.enter_context(mock.patch.object(F, "scaled_dot_product_attention", attend_with_heads))
        yield


def _ratio(x: Tensor, numerator: tuple[float, ...], denominator: tuple[float, ...]) -> Tensor:
    return _polynomial(x, numerator) / _polynomial(x, denominator)


def _polynomial(x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    total = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient
    return total
