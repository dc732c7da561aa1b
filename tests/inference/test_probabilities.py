"""The views are the eight symmetries of the square, no two alike."""

from typing import get_args

import numpy as np
import torch

from pipeline.core.params import View
from pipeline.inference.probabilities import VIEWS


def test_the_views_are_the_group_of_the_square() -> None:
    image = torch.arange(2 * 9).reshape(2, 3, 3)
    array = image.numpy()
    symmetries = [np.rot90(flipped, turns, (1, 2)) for flipped in (array, array[:, :, ::-1]) for turns in range(4)]
    seen = [view(image).numpy() for view in VIEWS.values()]
    assert len(seen) == 8
    for ours, oracle in zip(seen, symmetries, strict=True):
        np.testing.assert_array_equal(ours, oracle)


def test_names_are_those_params_allow() -> None:

    assert tuple(VIEWS) == get_args(View)
