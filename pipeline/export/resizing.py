"""Resizing as ``predict`` does it with OpenCV, in operations that ONNX has: the same grey levels, up to rare ties.

Images are float32 with whole values from 0 to 255.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SCALE = 2048
"""OpenCV interpolates with weights that are multiples of 1/2048."""


class Fit(nn.Module):
    """``sources.images.fit`` in a graph: any side to ``size``, by area or, for smaller images, by linear interpolation.

    The graph chooses the branch by the side of the images, which are square.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, H) to (N, C, size, size)."""
        side, size = images.shape[2], self.size

        def same(x: Tensor) -> Tensor:
            return x[:, :, torch.arange(size)][..., torch.arange(size)]  # a copy of a known shape

        def blocks(x: Tensor) -> Tensor:
            return mean_of_blocks(x, size)

        def area(x: Tensor) -> Tensor:
            return mean_by_area(x, size)

        def linear(x: Tensor) -> Tensor:
            return enlarge(x, size)

        def smaller(x: Tensor) -> Tensor:
            return _either(side % size == 0, blocks, area, x)

        def other(x: Tensor) -> Tensor:
            return _either(side > size, smaller, linear, x)

        return _either(side == size, same, other, images)


def mean_of_blocks(images: Tensor, size: int) -> Tensor:
    """``sources.images.shrink`` to (N, C, size, size) for images (N, C, H, H) where H is a multiple of ``size``.

    As in OpenCV, half is rounded up if two pixels become one, and to even otherwise.
    """
    many = images.shape[2] // size
    whole = images[..., : many * size, : many * size]  # all of it, as the exporter cannot know
    sums = whole.reshape(images.shape[0], images.shape[1], size, many, size, many).sum((3, 5))
    pixels = torch.full((), many * many)
    means = sums * (1 / pixels).float()
    return torch.round(means + torch.where(pixels == 4, 0.125, 0.0))  # multiples of 1/4, so half is rounded up


def mean_by_area(images: Tensor, size: int) -> Tensor:
    """The same where H, at least ``size``, is no multiple of it: each pixel is the mean of the area it covers."""
    side = images.shape[2]
    pixel, source = torch.arange(size)[:, None], torch.arange(side)
    # Whole numbers, in units of 1/size of a source pixel, so that the weights are rounded only once.
    ends, starts = torch.minimum((pixel + 1) * side, (source + 1) * size), torch.maximum(pixel * side, source * size)
    weights = (ends - starts).clamp_min(0).float() / side
    return torch.round(weights @ images @ weights.T)


def shrink_quickly(images: Tensor, size: int) -> Tensor:
    """``sources.images.shrink_quickly``: images (N, C, S, S), where S is a constant, to (N, C, size, size)."""
    side = int(images.shape[2])
    while side >= 2 * size and side % 2 == 0:
        images = torch.floor(F.avg_pool2d(images, 2) + 0.5)
        side //= 2
    if side == size:
        return images
    return mean_of_blocks(images, size) if side % size == 0 else mean_by_area(images, size)


def enlarge(images: Tensor, size: int) -> Tensor:
    """Bilinear interpolation with OpenCV's fixed-point numbers, for images (N, C, H, H) with H below ``size``."""
    side = images.shape[2]
    place = (torch.arange(size).double() + 0.5) * (torch.full((), side).double() / size) - 0.5
    place = place.float()
    before = place.floor()
    inside = (before >= 0) & (before < side - 1)
    share = torch.where(inside, place - before, 0.0)
    first = before.long().clamp(0, side - 1)
    second = (first + 1).clamp_max(side - 1)
    near, far = torch.round((1 - share) * SCALE).int(), torch.round(share * SCALE).int()
    x = images.int()
    rows = x[..., first] * near + x[..., second] * far  # N, C, H, size
    rows = rows // 16
    mixed = rows[:, :, first] * near[:, None] // 2**16 + rows[:, :, second] * far[:, None] // 2**16
    return ((mixed + 2) // 4).float()


def _either(
    choice: bool | torch.SymBool, yes: Callable[[Tensor], Tensor], no: Callable[[Tensor], Tensor], x: Tensor
) -> Tensor:
    """One of two branches; both are in the graph if the choice depends on the size of its input."""
    found: Tensor = torch.cond(choice, yes, no, (x,))  # type: ignore[arg-type]  # a symbol too
    return found
