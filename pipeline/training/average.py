"""A moving average of the weights, which generalises better than the last ones."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from pipeline.model.network import Network


def moving_average(network: Network, decay: float) -> AveragedModel:
    """Start an exponential moving average of weights and batch-norm statistics.

    The decay of update ``t`` is ``min(decay, (1 + t) / (10 + t))``, so that a short run is not an average of its
    random start. ``.module`` is the averaged network.

    Source: Polyak & Juditsky 1992; the warm-up of the decay is TensorFlow's ``ExponentialMovingAverage``.
    """

    @torch.no_grad()
    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], updates: Tensor | int) -> None:
        t = int(updates)
        weight = 1 - min(decay, (1 + t) / (10 + t))
        for old, new in zip(averaged, current, strict=True):
            if old.is_floating_point():
                old.lerp_(new, weight)
            else:
                old.copy_(new)  # batch norm's counter

    return AveragedModel(network, multi_avg_fn=update, use_buffers=True)
