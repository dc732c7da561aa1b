"""The two poolings of CBAM with gradients of few passes over the feature map.

Gates cost a thousandth of a network's arithmetic, but each pass over a feature map costs memory traffic, and
autograd takes many: a broadcast gradient is written out, then added, for every use of the map. Here each
pooling hands the map on and gathers in one place what comes back for it.
"""

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F


def pool_positions(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hand on ``x`` (B, C, H, W), with its mean and maximum over the positions, (B, C) each.

    What follows must use the ``x`` handed on, so that its gradient arrives here.
    """
    handed_on, mean, highest = PoolPositions.apply(x)
    return handed_on, mean, highest


def scale_and_pool_channels(x: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
    """``y = x * gate``, and the maximum and mean of ``y`` over its channels.

    What follows must use this ``y``, so that its gradient arrives here once.

    Args:
        x: (B, C, H, W).
        gate: (B, C).

    Returns:
        ``y`` (B, C, H, W), and what is pooled (B, 2, H, W).
    """
    y, pooled = ScaleAndPoolChannels.apply(x, gate)
    return y, pooled


def scale_positions(x: Tensor, gate: Tensor) -> Tensor:
    """``x * gate`` for ``x`` (B, C, H, W) and ``gate`` (B, 1, H, W)."""
    y: Tensor = ScalePositions.apply(x, gate)
    return y


class PoolPositions(Function):
    """See ``pool_positions``."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: D102
        # Torch's pooling knows where the maximum was; amax would have to compare every value with it again.
        highest, where = F.adaptive_max_pool2d(x, 1, return_indices=True)
        ctx.save_for_backward(where.flatten(1))
        return x.view_as(x), x.mean((2, 3)), highest.flatten(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, of_x: Tensor, of_mean: Tensor, of_highest: Tensor) -> Tensor:  # noqa: D102
        (where,) = ctx.saved_tensors  # type: ignore[attr-defined]
        of_x = _channels_last(of_x + (of_mean / of_x[0, 0].numel())[:, :, None, None])
        _positions(of_x).scatter_add_(1, where[:, None], of_highest[:, None])
        return of_x


class ScaleAndPoolChannels(Function):
    """See ``scale_and_pool_channels``."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        y = _channels_last(x * gate[:, :, None, None])
        # Knowing where the maximum was costs two readings of y now, and spares three passes of comparing later.
        highest, where = _positions(y).max(-1)
        ctx.save_for_backward(x, gate, where)
        pooled = torch.stack((highest, _positions(y).mean(-1)), dim=-1)
        # The pair side by side in memory: the 7x7 convolution that follows takes half the time.
        return y, pooled.view(len(y), *y.shape[2:], 2).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, of_y: Tensor, of_pooled: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        x, gate, where = ctx.saved_tensors  # type: ignore[attr-defined]
        of_y = _channels_last(of_y + of_pooled[:, 1:] / x.shape[1])
        _positions(of_y).scatter_add_(2, where[..., None], _positions(of_pooled[:, :1]).to(of_y.dtype))
        of_gate = (_positions(of_y) * _positions(x)).sum(1)
        return of_y.mul_(gate[:, :, None, None]), of_gate


class ScalePositions(Function):
    """See ``scale_positions``."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, gate: Tensor) -> Tensor:  # noqa: D102
        ctx.save_for_backward(x, gate)
        return x * gate

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, of_y: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        x, gate = ctx.saved_tensors  # type: ignore[attr-defined]
        return of_y * gate, (of_y * x).sum(1, keepdim=True)


def _positions(x: Tensor) -> Tensor:
    """(B, C, H, W) as (B, H * W, C): a view of memory in channels-last order."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
