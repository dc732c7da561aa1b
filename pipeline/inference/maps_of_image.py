"""Attention maps of many labels for one image: the query maps of all labels come from a single forward pass."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.core import hardware
from pipeline.inference.attention_maps import LABEL_MAPS, MAP_SIZE, label_maps
from pipeline.inference.trained_models import LoadedModels
from pipeline.models.checkpoint import AnyModel
from pipeline.models.network import Network
from pipeline.sources.images import Image


def maps_of_image(models: LoadedModels, image: Image, labels: Sequence[int]) -> Image:
    """What ``mean_attention_maps`` gives for copies of one image, in a fraction of the time where there are queries.

    Args:
        models: the fold models of each model.
        image: (S, S, 4) uint8.
        labels: L of them.

    Returns:
        (L, MAP_SIZE, MAP_SIZE) uint8, each scaled to a maximum of 255; all 0 if nothing contributes to the label.
    """
    total = torch.zeros(len(labels), MAP_SIZE, MAP_SIZE)
    for model in (model for by_fold in models.values() for model in by_fold):
        total += _maps(model.network, model.to_input(image[None]).to(hardware.device()), labels).cpu()
    highest = total.amax(dim=(1, 2), keepdim=True)
    scaled: Image = (total / highest.where(highest > 0, 1.0) * 255).round().to(torch.uint8).numpy()
    return scaled


def _maps(model: AnyModel, batch: Tensor, labels: Sequence[int]) -> Tensor:
    """The best label-specific map of each label, (L, MAP_SIZE, MAP_SIZE), with a maximum of 1."""
    chosen = torch.tensor(labels, device=batch.device)
    if isinstance(model, Network) and model.queries is not None:
        with torch.no_grad():
            found = model.queries.maps(model.levels(batch))[0, chosen]
        enlarged = F.interpolate(found[:, None].float(), (MAP_SIZE, MAP_SIZE), mode="bilinear", align_corners=False)[
            :, 0
        ]
        highest = enlarged.amax(dim=(1, 2), keepdim=True)
        return enlarged / highest.where(highest > 0, 1.0)
    maps = label_maps(model, batch.expand(len(labels), -1, -1, -1), chosen, MAP_SIZE)
    return next(maps[kind] for kind in LABEL_MAPS if kind in maps)
