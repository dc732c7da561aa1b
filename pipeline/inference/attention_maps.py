"""Attention maps: which parts of an image contribute to a label. The only module that imports captum."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from captum.attr import Occlusion
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.attention import SpatialGate
from pipeline.models.checkpoint import AnyModel
from pipeline.models.classical import FeatureForest
from pipeline.models.network import Network

MAP_SIZE = 96
"""Side in pixels of stored maps; the feature maps of the last stage are smaller."""

WINDOWS = 8
"""Windows per side that occlusion blackens one at a time."""

LABEL_MAPS = ("query", "gradient", "cam", "occlusion")
"""Kinds of map that are specific to a label, best first; every model has at least one of them."""


def label_maps(model: AnyModel, images: Tensor, labels: Tensor, size: int) -> dict[str, Tensor]:
    """Compute every kind of map that a model has, for one label of each image.

    - ``gradient`` (networks): the positions that increase the label's logit, as gradient times activation, summed over
      channels (Draelos and Carin, "Use HiResCAM instead of Grad-CAM", arXiv 2011.08891), in the finest level of the
      pyramid (H / 8), or without a pyramid in the stage before the last (H / 16), because the last one is too coarse
      for an organelle.
    - ``cam`` (``head`` pooled): the contributions of the last stage's positions to the logit, which they add up to with
      the bias (class activation maps: Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR
      2016), with the maximum of each channel as a contribution of its position. Negative ones are set to 0.
    - ``gate_1`` to ``gate_4`` (``attention`` spatial or cbam): CBAM's spatial gate in the last block of each stage, the
      same for every label.
    - ``query`` (``head`` label_queries): the attention of the label's query, with a pyramid at its finest level.
    - ``occlusion`` (hand-crafted features, which have no gradient): the decrease of the logit when a window of the
      protein channel is blackened (Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV
      2014).

    Args:
        model: in evaluation mode.
        images: (B, 4, S, S) uint8, at the model's input size.
        labels: (B,), from 0 to 27.
        size: side in pixels of the maps.

    Returns:
        (B, size, size) float32 in 0..1 for each kind. Gates are the sigmoids that the network applies; the other maps
        are scaled to a maximum of 1, and are 0 everywhere if nothing increases the logit.
    """
    if isinstance(model, FeatureForest):
        maps = {"occlusion": _occlusion(model, images, labels)}
    else:
        maps = _of_network(model, images, labels)
    enlarged = {kind: _enlarge(found, size) for kind, found in maps.items()}
    return {kind: found if kind.startswith("gate") else _scale(found) for kind, found in enlarged.items()}


def _of_network(network: Network, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    with _gates(network) as gates, torch.no_grad():
        levels = network.levels(images)
    maps = {"gradient": _gradient(network, images, labels)}
    by_stage = enumerate((gates[side] for side in sorted(gates, reverse=True)), start=1)
    maps |= {f"gate_{stage}": gate[:, 0] for stage, gate in by_stage}
    if network.pooled is not None:
        maps["cam"] = network.pooled.contributions(levels, labels).relu()
    if network.queries is not None:
        with torch.no_grad():
            maps["query"] = network.queries.maps(levels)[torch.arange(len(labels)), labels]
    return maps


@torch.no_grad()
def _occlusion(model: FeatureForest, images: Tensor, labels: Tensor) -> Tensor:
    """(B, WINDOWS, WINDOWS), non-negative."""

    def forward(protein: Tensor, stains: Tensor) -> Tensor:
        logits: Tensor = model(torch.cat([protein.to(torch.uint8), stains], dim=1))
        return logits

    side = math.ceil(images.shape[-1] / WINDOWS)
    found: Tensor = Occlusion(forward).attribute(
        images[:, :1].float(), (1, side, side), (1, side, side), target=labels, additional_forward_args=(images[:, 1:],)
    )  # B, 1, S, S; constant within a window
    return F.adaptive_avg_pool2d(found[:, 0].relu().float(), WINDOWS)


def _gradient(network: Network, images: Tensor, labels: Tensor) -> Tensor:
    """(B, h, w), non-negative, at the size of the stage or level."""
    with torch.enable_grad():
        maps = network.feature_maps(images)
        if network.kernel is None:
            levels = network.head_levels(maps)
            logits = network.logits_of_levels(levels)
        else:
            levels, logits = [], network.logits(maps)
        score = logits[torch.arange(len(labels)), labels].sum()
        # In a transformer, the last stage alone is a feature map that the logits are computed from.
        for found in levels[:1] if network.pyramid is not None else maps[-2:]:
            (gradient,) = torch.autograd.grad(score, found, retain_graph=True, allow_unused=True)
            if gradient is not None:
                break
    assert gradient is not None  # for the type checker: the last one is used
    return (found * gradient).sum(dim=1).relu().detach()


@contextmanager
def _gates(network: Network) -> Iterator[dict[int, Tensor]]:
    """Collect the last spatial gate of each stage, (B, 1, h, w), by its side, from the forward passes in the block."""
    found: dict[int, Tensor] = {}

    def keep(module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, SpatialGate)  # for the type checker
        found[output.shape[-1]] = output.detach() / module.scale

    gates = (module for module in network.backbone.modules() if isinstance(module, SpatialGate))
    hooks = [gate.register_forward_hook(keep) for gate in gates]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _enlarge(maps: Tensor, size: int) -> Tensor:
    return F.interpolate(maps[:, None].float(), (size, size), mode="bilinear", align_corners=False)[:, 0]


def _scale(maps: Tensor) -> Tensor:
    """Scale each map to a maximum of 1."""
    highest = maps.amax(dim=(1, 2), keepdim=True)
    return maps / highest.where(highest > 0, 1.0)
