"""A moving average of the weights, which generalises better than the last ones."""

from copy import deepcopy

import torch

from pipeline.model.network import Network


class MovingAverage:
    """The exponential moving average of a network's weights and batch-norm statistics.

    The decay of step ``t`` is ``min(decay, (1 + t) / (10 + t))``, so that a short run is not an average of its
    random start. Statistics are averaged as the weights they belong to are; counters are copied.

    Source: Polyak & Juditsky 1992; the warm-up of the decay is TensorFlow's ``ExponentialMovingAverage``.

    Attributes:
        network: the averaged network, in evaluation mode.
    """

    def __init__(self, network: Network, decay: float) -> None:
        self.network = deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        pairs = list(zip(self.network.state_dict().values(), network.state_dict().values(), strict=True))
        self._averaged = [(old, new) for old, new in pairs if old.is_floating_point()]
        self._copied = [(old, new) for old, new in pairs if not old.is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the network as it is after ``step``, counted from 0."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step)) if step else 1.0
        torch._foreach_lerp_([old for old, _ in self._averaged], [new for _, new in self._averaged], weight)
        for old, new in self._copied:
            old.copy_(new)
