"""CBAM is the paper's module: its parameter counts, timm's outputs where the two agree, and a difference where not."""

import pytest
import timm
import torch
from timm.layers.cbam import CbamModule
from torch import nn

from pipeline.model.attention import CBAM, ChannelGate, SpatialGate


def count(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


@pytest.mark.parametrize(
    ("backbone", "millions", "added"),
    # Woo et al., ECCV 2018, tables 4 and 5 (millions to two digits); the added weights follow from the formula.
    [
        ("resnet18", "11.78", 89_880),
        ("resnet34", "21.96", 162_796),
        ("resnet50", "28.09", 2_532_592),
        ("resnet101", "49.33", 4_781_012),
    ],
)
def test_parameter_counts_are_the_papers(backbone: str, millions: str, added: int) -> None:
    plain = timm.create_model(backbone)
    attended = timm.create_model(backbone, block_args={"attn_layer": CBAM})
    assert f"{count(attended) / 1e6:.2f}" == millions
    assert count(attended) - count(plain) == added


def with_weights_of_timm(channels: int) -> tuple[CBAM, nn.Module]:
    """Our module with timm's weights: no biases, and the two pooled maps in the other order."""
    torch.manual_seed(0)
    theirs = CbamModule(channels, rd_ratio=1 / 16, rd_divisor=1).eval()
    ours = CBAM(channels).eval()
    with torch.no_grad():
        ours.channel.squeeze.weight.copy_(theirs.channel.fc1.weight[:, :, 0, 0])
        ours.channel.excite.weight.copy_(theirs.channel.fc2.weight[:, :, 0, 0])
        ours.channel.squeeze.bias.zero_()
        ours.channel.excite.bias.zero_()
        ours.spatial.conv.weight.copy_(theirs.spatial.conv.conv.weight.flip(1))
        ours.spatial.norm.load_state_dict(theirs.spatial.conv.bn.state_dict())
    return ours, theirs


def test_equals_timm_where_the_definitions_agree() -> None:
    ours, theirs = with_weights_of_timm(64)
    x = torch.randn(3, 64, 9, 7)
    torch.testing.assert_close(ours(x), theirs(x))


def test_the_bias_counts_once_for_each_pooling_which_timm_leaves_out() -> None:
    gate = ChannelGate(32)
    x = torch.randn(2, 32, 5, 5)

    def mlp(pooled: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = gate.excite(torch.relu(gate.squeeze(pooled)))
        return out

    expected = torch.sigmoid(mlp(x.mean((2, 3))) + mlp(x.amax((2, 3))))
    torch.testing.assert_close(gate(x)[:, :, 0, 0], expected)
    ours, theirs = with_weights_of_timm(64)
    with torch.no_grad():
        ours.channel.excite.bias.fill_(1)
    x = torch.randn(3, 64, 9, 7)
    assert not torch.allclose(ours(x), theirs(x))


def test_spatial_gate_pools_maximum_first_and_keeps_the_shape() -> None:
    gate = SpatialGate().eval()
    with torch.no_grad():
        gate.conv.weight.zero_()
        gate.conv.weight[0, 0, 3, 3] = 1  # only the maximum, only at its own position
    x = torch.randn(2, 8, 6, 6)
    expected = torch.sigmoid(x.amax(1, keepdim=True) / (1 + gate.norm.eps) ** 0.5)
    torch.testing.assert_close(gate(x), expected)


def test_gradients_are_right() -> None:
    block = CBAM(16).double().eval()
    x = torch.randn(2, 16, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, (x,))
