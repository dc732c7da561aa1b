"""Embeddings: a vector per image, such that images a model takes for similar have similar vectors."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.core import hardware, params
from pipeline.inference.finite import check_finite
from pipeline.models.checkpoint import AnyModel
from pipeline.models.classical import FeatureForest
from pipeline.models.network import Network, autocast

Vectors = npt.NDArray[np.float32]


@torch.no_grad()
def embed(model: AnyModel, images: Tensor, *, precision: params.Precision, name: str) -> Vectors:
    """The embeddings of images, (B, D); D depends on the model.

    Args:
        model: in evaluation mode, on the device.
        images: (B, 4, S, S) uint8, at the model's size.
        precision: of the forward pass, as in the model's section.
        name: of the model or its file, for the message.

    Raises:
        InputError: the model computes values that are not finite.
    """
    hardware.prepare()
    with autocast(precision):
        found = image_features(model, images.to(hardware.device()))
    vectors: Vectors = found.float().cpu().numpy()
    check_finite(vectors, name)
    return vectors


def image_features(model: AnyModel, images: Tensor) -> Tensor:
    """What the model's last layer decides by, as one vector per image: (B, 4, S, S) uint8 to (B, D).

    - Label queries: the features that each label's query has found, times the weights that turn them into its logit,
      summed over the labels by their probability; D is the number of channels of a level. That is the label's evidence
      and not only its sum, which is the logit.
    - Pooled head: the pooled feature maps; D is twice the channels of the last stage.
    - Frozen and classical models: the features that their head is fitted to.
    """
    if isinstance(model, FeatureForest) or model.kernel is not None:
        return model.head_features(images)
    seen, logits = _input_of_dropout(model, images)
    if model.queries is None:
        return seen
    evidence = seen * model.queries.weight  # B, 28, C
    return (evidence * logits.sigmoid().unsqueeze(-1)).sum(dim=1)


def _input_of_dropout(network: Network, images: Tensor) -> tuple[Tensor, Tensor]:
    """What the head's dropout, which comes just before its last layer, is given; and the logits, (B, 28)."""
    head = network.pooled if network.queries is None else network.queries
    assert head is not None  # for the type checker: the kernel head has no dropout
    seen: list[Tensor] = []
    handle = head.dropout.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        logits: Tensor = network(images)
    finally:
        handle.remove()
    return seen[0], logits
