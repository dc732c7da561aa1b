"""The poolings and gates of CBAM as autograd functions that pass over the feature map only a few times.

Gates take a thousandth of a network's arithmetic, but each pass over a feature map takes memory bandwidth. Autograd
needs many: for every use of the map, it writes a broadcast gradient and then adds it. Here, each pooling also returns
the map, so that all gradients of the map are added in one backward function.
"""

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F


def pool_positions(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``x`` (B, C, H, W) and its mean and maximum over positions, (B, C) each.

    Later layers must use the returned ``x``, so that its gradient is added here.
    """
    same, mean, highest = PoolPositions.apply(x)
    return same, mean, highest


def scale_and_pool_channels(x: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
    """Compute ``y = x * gate``, and the maximum and mean of ``y`` over channels.

    Later layers must use this ``y``, so that its gradient is added here.

    Args:
        x: (B, C, H, W).
        gate: (B, C).

    Returns:
        ``y`` (B, C, H, W), and maximum and mean (B, 2, H, W).
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
        # Unlike amax, both return the index of the maximum, so backward needs no comparisons.
        highest, where = (highest_by_pooling if x.device.type == "cpu" else highest_by_reduction)(x)
        ctx.save_for_backward(where)
        return x.view_as(x), x.mean((2, 3)), highest

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
        # The index of the maximum takes two more reads of y here, and saves three passes of comparisons in backward.
        highest, where = _positions(y).max(-1)
        ctx.save_for_backward(x, gate, where)
        pooled = torch.stack((highest, _positions(y).mean(-1)), dim=-1)
        # Maximum and mean are adjacent in memory, which halves the time of the 7x7 convolution that follows.
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


def highest_by_pooling(x: Tensor) -> tuple[Tensor, Tensor]:
    """Maximum over positions of (B, C, H, W) and its index, (B, C) each: the faster way on a CPU."""
    highest, where = F.adaptive_max_pool2d(x, 1, return_indices=True)
    return highest.flatten(1), where.flatten(1)


def highest_by_reduction(x: Tensor) -> tuple[Tensor, Tensor]:
    """The same on a GPU, where adaptive pooling copies the map to channels-first and scans each plane by one thread."""
    highest, where = _positions(x).max(1)
    return highest, where


def _positions(x: Tensor) -> Tensor:
    """(B, C, H, W) as (B, H * W, C): a view of memory in channels-last order."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
