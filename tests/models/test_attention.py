"""Every attention block against its paper's figures, another implementation, and a loop over its definition."""

import pytest
import timm
import torch
from timm.layers.cbam import CbamModule
from timm.layers.squeeze_excite import SEModule
from timm.models.resnet import Bottleneck, ResNet
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.core.errors import InputError
from pipeline.models.attention import (
    CBAM,
    Channel,
    ChannelGate,
    LocalSelfAttention,
    NonLocal,
    Spatial,
    SpatialGate,
    gate_layer,
    insert_attention,
)


def count(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def gflops(network: nn.Module) -> float:
    """Multiply-accumulations of one 224x224 image, as the papers count."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network.to("meta").eval()(torch.zeros(1, 3, 224, 224, device="meta"))
    return counter.get_total_flops() / 2e9


def imagenet(backbone: str, attention: str) -> nn.Module:
    network: nn.Module = timm.create_model(backbone, block_args={"attn_layer": gate_layer(attention, "paper")})
    insert_attention(network, attention)
    return network


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
def test_cbam_parameter_counts_are_the_papers(backbone: str, millions: str, added: int) -> None:
    plain, attended = imagenet(backbone, "none"), imagenet(backbone, "cbam")
    assert f"{count(attended) / 1e6:.2f}" == millions
    assert count(attended) - count(plain) == added


@pytest.mark.parametrize(
    ("backbone", "millions"),
    [("resnet18", "11.78"), ("resnet34", "21.96"), ("resnet50", "28.09"), ("resnet101", "49.33")],
)
def test_squeeze_and_excitation_parameter_counts_are_the_papers(backbone: str, millions: str) -> None:
    assert f"{count(imagenet(backbone, 'channel')) / 1e6:.2f}" == millions


@pytest.mark.parametrize(
    ("backbone", "plain", "attended"),
    # Table 4 of the paper.
    [
        ("resnet18", "1.814", "1.815"),
        ("resnet34", "3.664", "3.665"),
        ("resnet50", "3.858", "3.864"),
        ("resnet101", "7.570", "7.581"),
    ],
)
def test_cbam_operations_are_the_papers(backbone: str, plain: str, attended: str) -> None:
    assert f"{gflops(with_first_strides(imagenet(backbone, 'none'))):.3f}" == plain
    assert f"{gflops(with_first_strides(imagenet(backbone, 'cbam'))):.3f}" == attended


def with_first_strides(network: nn.Module) -> nn.Module:
    """The bottlenecks of 2016, which shrink the map in their first convolution and not in their second."""
    for block in (part for part in network.modules() if isinstance(part, Bottleneck)):
        block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    return network


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


def test_squeeze_and_excitation_equals_timm() -> None:
    torch.manual_seed(0)
    theirs, ours = SEModule(64, rd_ratio=1 / 16, rd_divisor=1), Channel(64)
    with torch.no_grad():
        for layer, source in ((ours.gate.squeeze, theirs.fc1), (ours.gate.excite, theirs.fc2)):
            layer.weight.copy_(source.weight[:, :, 0, 0])
            assert source.bias is not None
            layer.bias.copy_(source.bias)
    x = torch.randn(3, 64, 9, 7)
    torch.testing.assert_close(ours(x), theirs(x))


def test_the_spatial_block_is_cbam_without_its_channel_gate() -> None:
    torch.manual_seed(0)
    both, alone = CBAM(16).eval(), Spatial(16).eval()
    alone.gate.load_state_dict(both.spatial.state_dict())
    with torch.no_grad():
        both.channel.excite.weight.zero_()
        both.channel.excite.bias.fill_(50)  # a channel gate of 1
    x = torch.randn(2, 16, 8, 8)
    torch.testing.assert_close(alone(x), both(x))


def test_the_bias_counts_once_for_each_pooling_which_timm_leaves_out() -> None:
    gate_layer = ChannelGate(32, identity=False)
    x = torch.randn(2, 32, 5, 5)

    def mlp(pooled: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = gate_layer.excite(torch.relu(gate_layer.squeeze(pooled)))
        return out

    expected = torch.sigmoid(mlp(x.mean((2, 3))) + mlp(x.amax((2, 3))))
    torch.testing.assert_close(gate_layer(x.mean((2, 3)), x.amax((2, 3))), expected)
    ours, theirs = with_weights_of_timm(64)
    with torch.no_grad():
        ours.channel.excite.bias.fill_(1)
    x = torch.randn(3, 64, 9, 7)
    assert not torch.allclose(ours(x), theirs(x))


def test_spatial_gate_reads_the_maximum_first() -> None:
    gate_layer = SpatialGate(identity=False).eval()
    with torch.no_grad():
        gate_layer.conv.weight.zero_()
        gate_layer.conv.weight[0, 0, 3, 3] = 1  # only the first map, only at its own position
    pooled = torch.randn(2, 2, 6, 6)
    expected = torch.sigmoid(pooled[:, :1] / (1 + gate_layer.norm.eps) ** 0.5)
    torch.testing.assert_close(gate_layer(pooled), expected)


def test_non_local_equals_a_loop_over_positions() -> None:
    torch.manual_seed(0)
    block = NonLocal(6).double().eval()
    with torch.no_grad():
        block.norm.weight.fill_(0.7)
    x = torch.randn(2, 6, 3, 4, dtype=torch.float64)
    theta, phi, g = block.embed(x).flatten(2).chunk(3, dim=1)  # B, C/2, HW each
    looked = torch.zeros(2, 3, 12, dtype=torch.float64)
    for sample in range(2):
        for i in range(12):
            weights = torch.stack([(theta[sample, :, i] @ phi[sample, :, j]).exp() for j in range(12)])
            looked[sample, :, i] = (weights / weights.sum() * g[sample]).sum(dim=1)
    expected = x + block.norm(block.project(looked.view(2, 3, 3, 4)))
    torch.testing.assert_close(block(x), expected)


def test_non_local_blocks_stand_where_the_paper_puts_five() -> None:
    names = [name for name, part in imagenet("resnet50", "nonlocal").named_modules() if isinstance(part, NonLocal)]
    assert names == ["layer2.1_nonlocal", "layer2.3_nonlocal"] + [f"layer3.{i}_nonlocal" for i in (1, 3, 5)]


@pytest.mark.parametrize("stride", [1, 2])
def test_self_attention_equals_a_loop_over_neighbours(stride: int) -> None:
    torch.manual_seed(0)
    block = LocalSelfAttention(5, 32, stride).double()
    x = torch.randn(2, 5, 6, 8, dtype=torch.float64)
    q, k, v = block.project(x).chunk(3, dim=1)  # B, 32, 6, 8 each
    y = torch.zeros(2, 32, 6, 8, dtype=torch.float64)
    for sample in range(2):
        for head in range(8):
            part = slice(4 * head, 4 * head + 4)
            for row in range(6):
                for column in range(8):
                    y[sample, part, row, column] = looked_around(
                        block, head, q[sample, part], k[sample, part], v[sample, part], row, column
                    )
    torch.testing.assert_close(block(x), nn.functional.avg_pool2d(y, stride))


def looked_around(
    block: LocalSelfAttention, head: int, q: Tensor, k: Tensor, v: Tensor, row: int, column: int
) -> Tensor:
    """One position of one head, (4,); q, k and v are (4, 6, 8)."""
    logits, values = [], []
    for a in range(max(row - 3, 0), min(row + 4, 6)):
        for b in range(max(column - 3, 0), min(column + 4, 8)):
            offset = torch.cat((block.rows[head, :, a - row + 3, 0], block.columns[head, :, 0, b - column + 3]))
            logits.append(q[:, row, column] @ k[:, a, b] + q[:, row, column] @ offset)
            values.append(v[:, a, b])
    return torch.softmax(torch.stack(logits), dim=0) @ torch.stack(values)


@pytest.mark.parametrize(
    ("layers", "plain", "attended"),
    # Ramachandran et al., NeurIPS 2019, table 1 (millions).
    [((1, 2, 4, 1), 13.7, 10.3), ((2, 3, 5, 2), 19.6, 14.1), ((3, 4, 6, 3), 25.6, 18.0)],
)
def test_self_attention_parameter_counts_are_the_papers(
    layers: tuple[int, int, int, int], plain: float, attended: float
) -> None:
    network = ResNet(Bottleneck, layers)  # type: ignore[arg-type]  # timm means the class
    assert count(network) / 1e6 == pytest.approx(plain, abs=0.1)
    insert_attention(network, "self")
    assert count(network) / 1e6 == pytest.approx(attended, abs=0.1)


def test_channels_that_do_not_split_among_heads_are_refused() -> None:
    with pytest.raises(InputError, match="multiple of 16 channels, not 24"):
        LocalSelfAttention(24, 24)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet26", "test_resnet"])
@pytest.mark.parametrize("attention", ["channel", "spatial", "cbam", "nonlocal"])
def test_identity_starts_as_the_plain_network(backbone: str, attention: str) -> None:
    torch.manual_seed(0)
    plain = timm.create_model(backbone, zero_init_last=False).eval()
    attended = timm.create_model(
        backbone, zero_init_last=False, block_args={"attn_layer": gate_layer(attention, "identity")}
    ).eval()
    insert_attention(attended, attention)
    loaded = attended.load_state_dict(plain.state_dict(), strict=False)
    assert not loaded.unexpected_keys
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(attended(x), plain(x), rtol=1e-5, atol=1e-5)
    attended.train()(x).sum().backward()
    silent = [name for name in loaded.missing_keys if name.endswith(("excite.weight", "norm.weight"))]
    weights = dict(attended.named_parameters())
    assert silent
    for name in silent:
        grad = weights[name].grad
        assert grad is not None
        assert grad.abs().max() > 0  # it can leave the identity


def test_the_papers_start_is_another_function() -> None:
    torch.manual_seed(0)
    plain = timm.create_model("test_resnet", zero_init_last=False).eval()
    attended = timm.create_model(
        "test_resnet", zero_init_last=False, block_args={"attn_layer": gate_layer("cbam", "paper")}
    )
    attended.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(2, 3, 64, 64)
    assert not torch.allclose(attended.eval()(x), plain(x), rtol=1e-2)


@pytest.mark.parametrize(
    "block", [Channel(16), Spatial(16), CBAM(16), CBAM(16, identity=True), NonLocal(16), LocalSelfAttention(16, 16)]
)
def test_gradients_are_right(block: nn.Module) -> None:
    torch.manual_seed(0)
    block = block.double().eval()
    with torch.no_grad():
        for weight in block.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)  # away from the zeros that some begin with
    x = torch.randn(1, 16, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, (x,))
