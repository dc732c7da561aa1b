"""A model that was trained without one fold, ready to be applied to images."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.core import params
from pipeline.inference.embedding import Vectors, embed
from pipeline.models.checkpoint import AnyModel
from pipeline.sources.images import Image, shrink_quickly


@dataclass(frozen=True)
class FoldModel:
    """A model trained without one fold, and its section of params.yaml at the time."""

    network: AnyModel
    recipe: params.Model

    @property
    def drops_stains(self) -> bool:
        """Whether the model was also trained on images without some of the reference stains."""
        return isinstance(self.recipe, params.BackboneModel) and self.recipe.augment.drop_stains > 0

    def to_input(self, images: Image) -> Tensor:
        """Resize images (B, S, S, 4) uint8 to the model's input (B, 4, s, s), as packed images are."""
        small = np.stack([shrink_quickly(image, self.recipe.size) for image in images])
        return torch.from_numpy(small).permute(0, 3, 1, 2)

    def embed(self, images: Image, name: str) -> Vectors:
        """The embeddings (B, D) of images (B, S, S, 4) uint8.

        Args:
            images: at least as large as the model's input.
            name: of the model, for the message.

        Raises:
            InputError: the model computes values that are not finite.
        """
        return embed(self.network, self.to_input(images), precision=self.recipe.precision, name=name)
