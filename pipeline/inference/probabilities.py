"""Probabilities predicted by one trained model, with test-time augmentation (TTA)."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.core import hardware, params
from pipeline.core.labels import LABELS
from pipeline.models.checkpoint import AnyModel
from pipeline.models.classical import FeatureForest
from pipeline.models.network import autocast

VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "rot90": lambda x: torch.rot90(x, 1, (-2, -1)),
    "rot180": lambda x: torch.rot90(x, 2, (-2, -1)),
    "rot270": lambda x: torch.rot90(x, 3, (-2, -1)),
    "flip": lambda x: x.flip(-1),
    "flip_rot90": lambda x: torch.rot90(x.flip(-1), 1, (-2, -1)),
    "flip_rot180": lambda x: torch.rot90(x.flip(-1), 2, (-2, -1)),
    "flip_rot270": lambda x: torch.rot90(x.flip(-1), 3, (-2, -1)),
}
"""The eight symmetries of the square: a field of view has no preferred orientation.

Each maps (..., S, S) to the same shape. Rotations are counter-clockwise; the flip is left to right and comes first."""


@torch.no_grad()
def probabilities(
    model: AnyModel,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    views: Sequence[str] = ("identity",),
    precision: params.Precision,
) -> npt.NDArray[np.float32]:
    """Average the sigmoid of the logits over views: (N, 28) float32, in the order of the batches.

    Args:
        model: in evaluation mode, on the device.
        batches: pairs of images (B, 4, S, S) uint8 and targets, which are not used.
        views: keys of ``VIEWS``. Hand-crafted features do not depend on the view, so only the first is used for them.
        precision: of the forward pass, as in the model's section.
    """
    hardware.prepare()
    device = hardware.device()
    views = views[:1] if isinstance(model, FeatureForest) else views
    parts = [torch.zeros(0, len(LABELS))]  # a source may have no test samples
    for images, _ in batches:
        images = images.to(device, non_blocking=True)
        total = torch.zeros((), device=device)
        for view in views:
            with autocast(precision):
                logits = model(VIEWS[view](images))
            total = total + logits.float().sigmoid()
        parts.append((total / len(views)).cpu())
    return torch.cat(parts).numpy()
