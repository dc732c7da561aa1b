"""What is exported in place of the models' own code computes the same."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from scipy.special import ndtri
from torch.nn import functional as F

from pipeline.export.exportable import ExactNormalise, exportable_operations, inverse_normal, kernel_logits
from pipeline.models import pooling
from pipeline.models.heads import KernelHead
from pipeline.models.network import MIN_STD, Normalise


def test_the_inverse_normal_distribution_is_that_of_scipy() -> None:
    p = np.concatenate([np.geomspace(1e-6, 0.5, 500), 1 - np.geomspace(1e-6, 0.5, 500)])
    np.testing.assert_allclose(inverse_normal(torch.from_numpy(p)).numpy(), ndtri(p), atol=2e-7, rtol=2e-7)


def test_the_kernel_head_gives_the_same_logits() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(40, 12, generator=generator).exp().round(decimals=1)  # with ties, as maxima have
    head = KernelHead(12)
    head.fit(features, torch.rand(40, 28, generator=generator).round())
    new = torch.cat([features[:10], 3 * torch.randn(10, 12, generator=generator), features[:1] * 0])
    torch.testing.assert_close(kernel_logits(head, new).sigmoid(), head(new).sigmoid(), atol=2e-5, rtol=0)


def test_lengths_and_attention_are_replaced_for_the_block_alone() -> None:
    query, key, value = torch.randn(3, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    before = F.scaled_dot_product_attention(query, key, value, scale=1.0)
    with exportable_operations():
        assert vars(pooling)["len"](torch.zeros(3, 2)) == 3
        assert vars(pooling)["len"]("four") == 4
        within = F.scaled_dot_product_attention(query, key, value, scale=1.0)
    assert "len" not in vars(pooling)
    torch.testing.assert_close(within, before)


@pytest.mark.parametrize("batch", [1, 3])
def test_any_length_is_that_of_the_tensor(batch: int) -> None:
    with exportable_operations():
        y, pooled = pooling.scale_and_pool_channels(torch.ones(batch, 2, 3, 3), torch.ones(batch, 2))
    assert y.shape == (batch, 2, 3, 3)
    assert pooled.shape == (batch, 2, 3, 3)


def test_the_graph_normalises_large_images_exactly(tmp_path: Path) -> None:
    images = np.random.default_rng(0).exponential([[[[3]], [[20]], [[60]], [[0]]]], (2, 4, 512, 512))
    pixels = np.minimum(images, 255).astype(np.uint8).astype(np.float32)
    exact = pixels.astype(np.float64) / 255
    std = exact.std((2, 3), keepdims=True).clip(MIN_STD)
    normalised = (exact - exact.mean((2, 3), keepdims=True)) / std
    module = ExactNormalise(Normalise("image", gain=1.0)).eval()
    torch.testing.assert_close(module(torch.from_numpy(pixels)).numpy(), np.float32(normalised), atol=2e-6, rtol=0)
    torch.onnx.export(module, (torch.from_numpy(pixels),), tmp_path / "graph.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "graph.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: pixels})
    np.testing.assert_allclose(found, normalised, atol=2e-6)


def test_statistics_of_the_training_set_stay_those_of_the_network() -> None:
    network = Normalise("dataset", gain=1.0).eval()
    network.mean.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]))
    network.std.copy_(torch.tensor([0.1, 0.2, 0.1, 0.2]))
    images = torch.arange(2 * 4 * 3 * 3).reshape(2, 4, 3, 3).float()
    torch.testing.assert_close(ExactNormalise(network).eval()(images), network(images), atol=0, rtol=0)
