"""Probabilities of a trained network."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.atlas.views import VIEWS
from pipeline.labels import LABELS
from pipeline.model.build import AnyModel, Measured
from pipeline.training import runtime


@torch.no_grad()
def probabilities(
    network: AnyModel,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    views: Sequence[str] = ("identity",),
    precision: runtime.Precision,
) -> npt.NDArray[np.float32]:
    """Mean over views of the sigmoid of the logits, (N, 28) float32, in the order of the batches.

    Args:
        network: in evaluation mode, on the device.
        batches: (images (B, 4, S, S) uint8, targets) pairs.
        views: names of ``atlas.views.VIEWS``. What is measured is the same in each, so there the first one does.
        precision: as in the model's section.
    """
    runtime.keep_freed_memory()
    device = runtime.device()
    views = views[:1] if isinstance(network, Measured) else views
    parts = [torch.zeros(0, len(LABELS))]  # a source may have no test samples
    for images, _ in batches:
        images = images.to(device, non_blocking=True)
        total = torch.zeros((), device=device)
        for view in views:
            with runtime.autocast(precision):
                logits = network(VIEWS[view](images))
            total = total + logits.float().sigmoid()
        parts.append((total / len(views)).cpu())
    return torch.cat(parts).numpy()
