"""The views are the eight symmetries of the square, no two alike, and their probabilities are averaged."""

from typing import get_args

import numpy as np
import torch

from pipeline.core.params import View
from pipeline.inference.probabilities import VIEWS, probabilities
from pipeline.models.network import Network
from tests.fixtures.models import TINY


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


def test_views_are_averaged_as_probabilities() -> None:
    network = Network(TINY).eval()
    batch = torch.randint(0, 256, (2, 4, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    flipped = network(batch.flip(-1)).sigmoid()
    expected = ((network(batch).sigmoid() + flipped) / 2).detach().numpy()
    got = probabilities(network, [(batch, batch)], views=["identity", "flip"], precision="fp32")
    np.testing.assert_allclose(got, expected, rtol=1e-5)
