"""From a model's section to the model itself: a network, or what is measured and a forest."""

import numpy as np
import torch
from torch import Tensor, nn

from pipeline import params
from pipeline.model.forest import ForestHead
from pipeline.model.measures import FEATURES, measure
from pipeline.model.network import Network


class Measured(nn.Module):
    """Features measured by classical image analysis, and a forest that tells locations by them: no network."""

    def __init__(self, seed: int) -> None:
        """No trees yet; ``seed`` decides those that will be grown."""
        super().__init__()
        self.forest = ForestHead(len(FEATURES), seed)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 4, S, S) uint8 to logits (B, 28)."""
        logits: Tensor = self.forest(self.describe(images))
        return logits

    def describe(self, images: Tensor) -> Tensor:
        """(B, 4, S, S) uint8 to what the forest takes, (B, F); measured on the CPU, wherever the images are."""
        found = np.stack([measure(image) for image in images.cpu().numpy()])
        return torch.from_numpy(found).to(images.device)

    def most_telling(self, count: int = 5) -> str:
        """The features of which the splits remove most of the targets' variance, each with its share."""
        order = self.forest.importance.argsort(descending=True)[:count].tolist()
        return ", ".join(f"{FEATURES[at]} {self.forest.importance[at]:.2f}" for at in order)


AnyModel = Network | Measured


def build(model: params.Model) -> AnyModel:
    """What the section describes, with fresh weights or without trees.

    Raises:
        InputError: see ``Network``.
    """
    return Measured(model.seed) if model.head == "forest" else Network(model)
