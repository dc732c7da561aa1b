"""The eight views of a field that has no up or down: the symmetries of the square."""

from collections.abc import Callable

import torch
from torch import Tensor

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
"""Each maps (..., S, S) to the same shape; quarter turns are counter-clockwise, the flip is left to right."""
