"""Resizing in the graph gives the grey levels of OpenCV."""

import numpy as np
import pytest
import torch

from pipeline.export import resizing
from pipeline.sources import images


def noise(side: int) -> images.Image:
    return np.random.default_rng(side).integers(0, 256, (side, side, 4), dtype=np.uint8)


def batch(image: images.Image) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None].float()


def levels(found: torch.Tensor) -> images.Image:
    assert torch.equal(found, found.round())
    return found[0].permute(1, 2, 0).numpy().astype(np.uint8)


@pytest.mark.parametrize("side", [128, 192, 256, 384])
def test_whole_multiples_are_shrunk_as_by_opencv(side: int) -> None:
    """Half is rounded up for two pixels, to even for others: noise has many ties."""
    image = noise(side)
    assert np.array_equal(levels(resizing.mean_of_blocks(batch(image), 64)), images.shrink(image, 64))


@pytest.mark.parametrize(("side", "size"), [(128, 96), (128, 80), (216, 64), (150, 128)])
def test_other_sides_are_shrunk_as_by_opencv(side: int, size: int) -> None:
    image = noise(side)
    assert np.array_equal(levels(resizing.mean_by_area(batch(image), size)), images.shrink(image, size))


@pytest.mark.parametrize(("side", "size"), [(128, 128), (128, 32), (128, 96), (192, 64), (100, 40)])
def test_the_input_of_models_is_shrunk_by_halves(side: int, size: int) -> None:
    image = noise(side)
    assert np.array_equal(levels(resizing.shrink_quickly(batch(image), size)), images.shrink_quickly(image, size))


@pytest.mark.parametrize("side", [30, 48, 63])
def test_smaller_images_are_enlarged_with_hardly_a_level_off(side: int) -> None:
    image = noise(side)
    found = levels(resizing.enlarge(batch(image), 64)).astype(int) - images.fit(image, 64)
    assert np.abs(found).max() <= 1
    assert (found != 0).mean() < 0.01


@pytest.mark.parametrize("side", [32, 64, 128, 100])
def test_the_side_chooses_the_way(side: int) -> None:
    found = levels(resizing.Fit(64)(batch(noise(side)))).astype(int) - images.fit(noise(side), 64)
    assert (found != 0).mean() < (0.01 if side < 64 else 1e-9)
