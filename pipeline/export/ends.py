"""The two ends of the decision path as torch modules: images to the networks' input, their output to probabilities."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.evaluation.calibration import SMALLEST
from pipeline.evaluation.decision_rule import DecisionRule
from pipeline.export.resizing import Fit, shrink_quickly
from pipeline.inference.probabilities import VIEWS


class ViewMaker(nn.Module):
    """Resize images as ``predict`` does, for networks of several sizes, and make the views of each.

    The views of all samples are one batch, so that each network is in the graph once.
    """

    def __init__(self, packed: int, sizes: Sequence[int], views: Sequence[str]) -> None:
        """Describe the input of the networks.

        Args:
            packed: side of the packed images, ``pack.size``.
            sizes: side of each output.
            views: keys of ``VIEWS``.
        """
        super().__init__()
        self.fit = Fit(packed)
        self.sizes, self.views = sizes, views

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(N, 4, H, H) uint8 to (V N, 4, size, size) float32 for each size, all samples of a view together."""
        fitted = self.fit(images.float())
        small = [shrink_quickly(fitted, size) for size in self.sizes]
        return tuple(torch.cat([VIEWS[view](image) for view in self.views]) for image in small)


class Decision(nn.Module):
    """Average probabilities over views and folds, blend the models, and calibrate: ``DecisionRule`` in a graph.

    In double precision, as the rule, since float32 has few numbers close to 1.
    """

    weights: Tensor
    offsets: Tensor
    typical: Tensor
    reference: Tensor

    def __init__(self, rule: DecisionRule, folds: Sequence[int], views: int) -> None:
        """Store a rule.

        Args:
            rule: of a run.
            folds: number of networks of each of the rule's models.
            views: number of views.
        """
        super().__init__()
        self.kind, self.slope = rule.blender.kind, rule.calibration.slope
        self.folds, self.views = tuple(folds), views
        self.register_buffer("weights", torch.from_numpy(rule.blender.weights).double())
        self.register_buffer("offsets", torch.from_numpy(rule.calibration.offsets).double())
        if self.kind == "ranks":
            reference = torch.from_numpy(rule.blender.reference).double()  # M, N, 28
            typical = torch.tensordot(torch.from_numpy(rule.blender.weights), reference, dims=1)
            self.register_buffer("typical", typical.sort(0).values)
            self.register_buffer("reference", reference.float())

    def forward(self, *probabilities: Tensor) -> Tensor:
        """Probabilities of each network, model by model, (V N, 28) each, to calibrated ones (N, 28)."""
        labels = probabilities[0].shape[1]
        by_network = [found.reshape(self.views, -1, labels).mean(0) for found in probabilities]
        by_model = [
            torch.stack(by_network[sum(self.folds[:model]) :][:count]).mean(0) for model, count in enumerate(self.folds)
        ]
        blended = self._blend(torch.stack(by_model)).float()  # rounded, as the rule does
        return (self.slope * self._logit(blended) + self.offsets).sigmoid().float()

    def _blend(self, members: Tensor) -> Tensor:
        """(M, N, 28) to (N, 28)."""
        if self.kind == "probabilities":
            return self._mean(members)
        if self.kind == "ranks":
            return self._mean_rank(members)
        return self._mean(self._logit(members)).sigmoid()

    def _mean(self, members: Tensor) -> Tensor:
        return (self.weights[:, None, None] * members.double()).sum(0)

    def _mean_rank(self, members: Tensor) -> Tensor:
        """See ``evaluation.blending.mean_rank``."""
        below = (self.reference[:, None] < members[:, :, None]).sum(2)
        upto = (self.reference[:, None] <= members[:, :, None]).sum(2)
        last = self.typical.shape[0] - 1
        rank = self._mean((below + upto - 1).double() / 2).clamp(0, last)
        low = rank.floor().long()
        high = (low + 1).clamp_max(last)
        return torch.lerp(self.typical.gather(0, low), self.typical.gather(0, high), rank - low)

    def _logit(self, probabilities: Tensor) -> Tensor:
        clipped = probabilities.double().clamp(SMALLEST, 1 - SMALLEST)
        return clipped.log() - (1 - clipped).log()
