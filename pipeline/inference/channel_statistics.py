"""Statistics of an image's channels that exposure hardly changes, to tell images that are unlike others."""

from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch

from pipeline.core.labels import CHANNELS
from pipeline.sources.images import Image

SHIFTS = (1, 2, 4, 8, 16)
"""Distances in pixels over which a channel is compared with itself."""

LEAST = 1e-3
"""Added to means, deviations and shares of white, so that empty channels have finite logarithms."""

STATISTICS = (
    *(f"contrast of {channel}" for channel in CHANNELS),
    *(f"saturation of {channel}" for channel in CHANNELS),
    *(f"correlation of {one} and {other}" for one, other in combinations(CHANNELS, 2)),
    *(f"roughness of {channel} at {shift} px" for shift in SHIFTS for channel in CHANNELS),
)
"""Names of the statistics, in order."""

Doubles = npt.NDArray[np.float64]


def channel_statistics(images: Image) -> Doubles:
    """The statistics of images (B, S, S, 4) uint8: (B, F), in the order of ``STATISTICS``.

    - contrast: log of standard deviation over mean;
    - saturation: log of the share of pixels at 255;
    - correlation of two channels over the pixels;
    - roughness: log of the mean squared difference of pixels at a distance, horizontally and vertically, over twice
      the variance (a variogram). It shows the scale of structures, and blur.

    Brightness is left out: it differs between microscopes and sessions, and networks that normalise each image do not
    see it.
    """
    x = torch.tensor(images).permute(0, 3, 1, 2).float() / 255  # B, 4, S, S
    flat = x.flatten(2)
    var, mean = torch.var_mean(flat, dim=2, correction=0)  # B, 4
    saturated = (flat == 1).float().mean(dim=2)
    centred = flat - mean[..., None]
    covariance = centred @ centred.transpose(1, 2) / flat.shape[2]  # B, 4, 4
    scale = var.sqrt() + LEAST
    one, other = zip(*combinations(range(len(CHANNELS)), 2), strict=True)
    correlation = covariance[:, one, other] / (scale[:, one] * scale[:, other])
    found = [(scale / (mean + LEAST)).log(), (saturated + LEAST).log(), correlation]
    for shift in SHIFTS:
        across = (x[..., shift:] - x[..., :-shift]).square().mean(dim=(2, 3))
        along = (x[..., shift:, :] - x[..., :-shift, :]).square().mean(dim=(2, 3))
        found.append(((across + along) / (4 * scale.square()) + LEAST**2).log())
    statistics: Doubles = torch.cat(found, dim=1).double().numpy()
    return statistics


def with_channels_swapped(statistics: Doubles, one: str, other: str) -> Doubles:
    """The statistics (n, F) that the same images would have with two channels swapped."""
    return statistics[:, [STATISTICS.index(_renamed(name, {one: other, other: one})) for name in STATISTICS]]


def _renamed(name: str, new: dict[str, str]) -> str:
    words = [new.get(word, word) for word in name.split()]
    if words[0] == "correlation":
        words[2], words[4] = sorted((words[2], words[4]), key=CHANNELS.index)
    return " ".join(words)
