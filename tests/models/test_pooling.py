"""CBAM's poolings: the values and gradients that autograd finds for them written plainly."""

import pytest
import torch
from torch import Tensor

from pipeline.models.pooling import (
    highest_by_pooling,
    highest_by_reduction,
    pool_positions,
    scale_and_pool_channels,
    scale_positions,
)

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def feature_map(layout: torch.memory_format) -> Tensor:
    torch.manual_seed(0)
    x = torch.randn(3, 6, 5, 4, dtype=torch.float64)
    return x.contiguous(memory_format=layout).requires_grad_()


def assert_same_gradients(ours: tuple[Tensor, ...], plain: tuple[Tensor, ...], inputs: tuple[Tensor, ...]) -> None:
    for left, right in zip(ours, plain, strict=True):
        torch.testing.assert_close(left, right)
    weights = [torch.randn_like(output) for output in plain]
    found = torch.autograd.grad(ours, inputs, weights)
    expected = torch.autograd.grad(plain, inputs, weights)
    for left, right in zip(found, expected, strict=True):
        torch.testing.assert_close(left, right)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pooling_positions(layout: torch.memory_format) -> None:
    x = feature_map(layout)
    assert_same_gradients(pool_positions(x), (x * 1, x.mean((2, 3)), x.amax((2, 3))), (x,))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_both_ways_to_the_highest_position_agree(layout: torch.memory_format) -> None:
    x = feature_map(layout).detach()
    for found in zip(highest_by_pooling(x), highest_by_reduction(x), strict=True):
        torch.testing.assert_close(*found)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_scaling_and_pooling_channels(layout: torch.memory_format) -> None:
    x = feature_map(layout)
    gate = torch.rand(3, 6, dtype=torch.float64, requires_grad=True)
    y = x * gate[:, :, None, None]
    plain = (y, torch.stack((y.amax(1), y.mean(1)), dim=1))
    assert_same_gradients(scale_and_pool_channels(x, gate), plain, (x, gate))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_scaling_positions(layout: torch.memory_format) -> None:
    x = feature_map(layout)
    gate = torch.rand(3, 1, 5, 4, dtype=torch.float64, requires_grad=True)
    assert_same_gradients((scale_positions(x, gate),), (x * gate,), (x, gate))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_of_equal_maxima_one_gets_the_gradient(layout: torch.memory_format) -> None:
    x = torch.ones(2, 6, 3, 3, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    _, pooled = scale_and_pool_channels(x, torch.ones(2, 6, dtype=torch.float64))
    (of_x,) = torch.autograd.grad(pooled[:, 0].sum(), x)
    assert (of_x.sum(dim=1) == 1).all()
    assert (of_x.amax(dim=1) == 1).all()
    _, _, highest = pool_positions(x)
    (of_x,) = torch.autograd.grad(highest.sum(), x)
    assert (of_x.sum(dim=(2, 3)) == 1).all()
    assert (of_x.amax(dim=(2, 3)) == 1).all()
