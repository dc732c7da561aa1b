"""Maps: gradients against their definition, gates and queries as the network used them, all at the asked size."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pipeline.core import params
from pipeline.inference.attention_maps import label_maps
from pipeline.models.attention import SpatialGate
from pipeline.models.network import Network
from tests.fixtures.models import FROZEN, TINY

SIZE = 96
GATES = [f"gate_{stage}" for stage in (1, 2, 3, 4)]


def network(model: params.BackboneModel = TINY, **changes: str | int) -> Network:
    torch.manual_seed(0)
    return Network(model.model_copy(update=changes)).eval()


def images(count: int = 2) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 4, 64, 64), dtype=np.uint8))


def test_gradient_is_the_rectified_sum_of_activations_times_gradients() -> None:
    net, labels = network(head="label_queries", pyramid=8), torch.tensor([3, 21])
    assert net.queries is not None
    levels = [level.detach().requires_grad_() for level in net.levels(images())]
    logits = net.queries(levels)
    (gradient,) = torch.autograd.grad(logits[torch.arange(2), labels].sum(), levels[0])
    expected = (levels[0] * gradient).sum(dim=1, keepdim=True).relu()
    expected = F.interpolate(expected, (SIZE, SIZE), mode="bilinear")[:, 0]
    assert (expected.amax(dim=(1, 2)) > 0).any()
    expected = expected / expected.amax(dim=(1, 2), keepdim=True).clamp_min(1e-30)
    torch.testing.assert_close(label_maps(net, images(), labels, SIZE)["gradient"], expected.detach())


def test_without_a_pyramid_the_gradient_is_taken_in_the_stage_before_the_last() -> None:
    net, labels, kept = network(), torch.tensor([3, 21]), []
    hook = net.backbone.get_submodule("layer3").register_forward_hook(
        lambda _module, _inputs, output: kept.append(output)
    )
    logits = net(images())
    hook.remove()
    (gradient,) = torch.autograd.grad(logits[torch.arange(2), labels].sum(), kept[0])
    expected = (kept[0] * gradient).sum(dim=1, keepdim=True).relu()
    expected = F.interpolate(expected, (SIZE, SIZE), mode="bilinear")[:, 0]
    expected = expected / expected.amax(dim=(1, 2), keepdim=True).clamp_min(1e-30)
    torch.testing.assert_close(label_maps(net, images(), labels, SIZE)["gradient"], expected.detach())


@pytest.mark.parametrize(
    ("model", "changes", "expected"),
    [
        (TINY, {"attention": "none"}, {"gradient", "cam"}),
        (TINY, {}, {"gradient", "cam", *GATES}),
        (TINY, {"head": "label_queries"}, {"gradient", "query", *GATES}),
        (FROZEN, {}, {"gradient", *GATES}),
    ],
    ids=["no attention", "cbam", "label queries", "frozen"],
)
def test_every_kind_is_given_in_range_at_the_size_asked_for(
    model: params.BackboneModel, changes: dict[str, str], expected: set[str]
) -> None:
    net = network(model, **changes)
    if net.kernel is not None:
        net.kernel.fit(net.head_features(images(6)), torch.eye(6, 28))
    maps = label_maps(net, images(), torch.tensor([0, 27]), SIZE)
    assert set(maps) == expected
    for found in maps.values():
        assert found.shape == (2, SIZE, SIZE)
        assert not found.requires_grad
        assert found.min() >= 0
        assert found.max() <= 1


def test_class_activation_maps_are_contributions_that_add_up_to_the_logit() -> None:
    net, labels = network(), torch.tensor([3, 21])
    assert net.pooled is not None
    with torch.no_grad():
        levels, logits = net.levels(images()), net(images())
    found = net.pooled.contributions(levels, labels)
    assert found.shape == (2, *levels[-1].shape[2:])
    torch.testing.assert_close(found.sum((1, 2)) + net.pooled.bias[labels], logits[torch.arange(2), labels])
    of_mean, of_highest = net.pooled.linear.weight[3].chunk(2)
    x, expected = levels[-1][0], torch.zeros_like(found[0])
    for row, column in np.ndindex(*expected.shape):
        for channel, value in enumerate(x[:, row, column]):
            expected[row, column] += of_mean[channel].detach() * value / expected.numel()
            if value == x[channel].max() > 0:
                expected[row, column] += of_highest[channel].detach() * value
    torch.testing.assert_close(found[0], expected)


def test_gates_are_those_that_the_network_used() -> None:
    net = network()
    seen = []
    last = [module for module in net.backbone.get_submodule("layer2").modules() if isinstance(module, SpatialGate)][-1]
    hook = last.register_forward_hook(lambda _module, _inputs, output: seen.append(output.detach()))
    with torch.no_grad():
        net(images())
    hook.remove()
    expected = F.interpolate(seen[0] / 2, (SIZE, SIZE), mode="bilinear")[:, 0]  # gates from identity reach 2
    torch.testing.assert_close(label_maps(net, images(), torch.tensor([0, 1]), SIZE)["gate_2"], expected)
    assert not last._forward_hooks


def test_query_maps_are_the_labels_own() -> None:
    net = network(head="label_queries")
    assert net.queries is not None
    labels = torch.tensor([5, 9])
    expected = net.queries.maps(net.levels(images()))[torch.arange(2), labels]
    expected = F.interpolate(expected[:, None], (SIZE, SIZE), mode="bilinear")[:, 0].detach()
    found = label_maps(net, images(), labels, SIZE)["query"]
    torch.testing.assert_close(found, expected / expected.amax(dim=(1, 2), keepdim=True))


def test_a_map_of_nothing_is_zero_everywhere() -> None:
    net = network()
    with torch.no_grad():
        assert net.pooled is not None
        net.pooled.linear.weight.zero_()
    assert label_maps(net, images(), torch.tensor([0, 1]), SIZE)["gradient"].max() == 0
