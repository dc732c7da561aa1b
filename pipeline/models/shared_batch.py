"""What a network needs when several processes share each batch: random numbers and batch norm of the whole batch.

Process ``rank`` of ``size`` has every ``size``-th sample of a batch, starting with sample ``rank``.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import FunctionCtx


class SampleRandom(nn.Module):
    """Base class of the modules that draw random numbers in training.

    Every process draws the numbers of the whole batch, from the same seed, and uses those of its own samples.

    Attributes:
        part: rank and size.
    """

    part: tuple[int, int] = (0, 1)

    def uniform(self, x: Tensor, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1) for the samples of ``x`` (B, ...), as (B, *shape), on its device."""
        rank, size = self.part
        return torch.rand(len(x) * size, *shape, device=x.device)[rank::size]


class Dropout(SampleRandom):
    """Dropout: in training, set values to 0 with probability ``rate``, and multiply the others by ``1 / (1 - rate)``.

    Source: Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", JMLR 2014.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) to the same shape."""
        if not self.training or not self.rate:
            return x
        return x * ((self.uniform(x, *x.shape[1:]) >= self.rate) / (1 - self.rate))


class SharedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm with the statistics of all processes' samples, on a CPU: torch's ``SyncBatchNorm`` needs a GPU.

    Every process must have the same number of samples.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) to the same shape."""
        if not self.training:
            return super().forward(x)
        own, others = x.double(), [dim for dim in range(x.ndim) if dim != 1]
        mean, square = _Mean.apply(torch.stack([own.mean(others), own.square().mean(others)]))
        var = (square - mean.square()).clamp_min(0)
        assert self.running_mean is not None  # for the type checker: statistics are tracked
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        with torch.no_grad():
            count = x.numel() // x.shape[1] * torch.distributed.get_world_size()
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum or 0)
            self.running_var.lerp_((var * count / (count - 1)).to(self.running_var.dtype), self.momentum or 0)
            self.num_batches_tracked += 1
        scale = (var + self.eps).rsqrt() * self.weight
        shift = self.bias - mean * scale
        shape = (-1, *[1] * (x.ndim - 2))
        return torch.addcmul(shift.float().view(shape), x.float(), scale.float().view(shape)).to(x.dtype)

    def _check_input_dim(self, _input: Tensor) -> None:
        """Any number of positions."""


class SharedBatchNormAct(SharedBatchNorm):
    """``SharedBatchNorm`` followed by an activation, in place of timm's module of both."""

    act: nn.Module
    drop: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) to the same shape."""
        found: Tensor = self.act(self.drop(super().forward(x)))
        return found


class _Mean(Function):
    """The mean of a tensor over all processes; the gradient is the sum of theirs, over their number."""

    @staticmethod
    def forward(_ctx: FunctionCtx, x: Tensor) -> Tensor:
        return _mean(x.clone())

    @staticmethod
    def backward(_ctx: FunctionCtx, *gradient: Any) -> Tensor:
        return _mean(gradient[0].clone())


def _mean(x: Tensor) -> Tensor:
    torch.distributed.all_reduce(x)
    return x.div_(torch.distributed.get_world_size())


def share_random(network: nn.Module, rank: int, size: int) -> None:
    """Tell the modules that draw random numbers which samples of every batch this process has."""
    for module in network.modules():
        if isinstance(module, SampleRandom):
            module.part = rank, size
