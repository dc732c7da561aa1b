"""Visual attention: channel, spatial, CBAM, non-local and local self-attention.

In a ResNet of timm, gates (channel, spatial, CBAM) are part of every residual block, after its last norm and before
the residual sum. Non-local blocks are inserted between residual blocks, and self-attention replaces 3x3 convolutions;
both are inserted by ``insert_attention``. In other convolutional networks, gates and non-local blocks follow a stage
(``AttendAfter``).

Gates have two initialisations. With ``paper``, the published one, gates start near 0.5, which damps each residual
branch, also of pretrained networks. With ``identity``, gates start at exactly 1: they are twice the sigmoid of a last
layer that starts at zero. Later layers can absorb the factor 2.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.core.errors import InputError
from pipeline.models.pooling import pool_positions, scale_and_pool_channels, scale_positions

REDUCTION = 16
KERNEL = 7
NEIGHBOURHOOD = 7
HEADS = 8


class ChannelGate(nn.Module):
    """A gate per channel, computed from features that are pooled over positions.

    ``scale * sigmoid(sum over poolings of MLP(pooled))``, where all poolings share the MLP (C -> C/16 -> C, ReLU,
    biases). ``scale`` is 1 as published, or 2 for gates that start at 1.
    """

    def __init__(self, channels: int, *, identity: bool) -> None:
        super().__init__()
        hidden = max(channels // REDUCTION, 1)
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, channels)
        self.scale = 2 if identity else 1
        if identity:
            nn.init.zeros_(self.excite.weight)
            nn.init.zeros_(self.excite.bias)

    def forward(self, *pooled: Tensor) -> Tensor:
        """Pooled features, (B, C) each, to gates (B, C)."""
        logits = self.excite(F.relu(self.squeeze(torch.stack(pooled))))  # poolings, B, C
        return self.scale * torch.sigmoid(logits.sum(0))


class SpatialGate(nn.Module):
    """A gate per position, computed from features that are pooled over channels.

    ``scale * sigmoid(BN(conv7x7([max, mean])))``; the convolution has no bias.
    """

    def __init__(self, *, identity: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, KERNEL, padding=KERNEL // 2, bias=False)
        self.norm = nn.BatchNorm2d(1)
        self.scale = 2 if identity else 1
        if identity:
            nn.init.zeros_(self.norm.weight)

    def forward(self, pooled: Tensor) -> Tensor:
        """Maximum and mean over channels, (B, 2, H, W), to gates (B, 1, H, W)."""
        gate: Tensor = self.scale * torch.sigmoid(self.norm(self.conv(pooled)))
        return gate


class Channel(nn.Module):
    """Squeeze and excitation: ``x * gate(mean over positions)``.

    Source: Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018; reduction 16, layers with biases.
    """

    def __init__(self, channels: int, *, identity: bool = False) -> None:
        super().__init__()
        self.gate = ChannelGate(channels, identity=identity)

    def forward(self, x: Tensor) -> Tensor:
        """Scale the channels of ``x`` (B, C, H, W); same shape."""
        gate: Tensor = self.gate(x.mean((2, 3)))  # B, C
        return x * gate.to(x.dtype)[:, :, None, None]


class Spatial(nn.Module):
    """The spatial attention of CBAM alone: ``x * gate([max, mean] over channels)``.

    Source: Woo et al., "CBAM: Convolutional Block Attention Module", ECCV 2018, section 3.2.
    """

    def __init__(self, _channels: int, *, identity: bool = False) -> None:
        super().__init__()
        self.gate = SpatialGate(identity=identity)

    def forward(self, x: Tensor) -> Tensor:
        """Scale the positions of ``x`` (B, C, H, W); same shape."""
        x, pooled = scale_and_pool_channels(x, torch.ones_like(x[:, :, 0, 0]))
        return scale_positions(x, self.gate(pooled).to(x.dtype))


class CBAM(nn.Module):
    """CBAM: channel attention followed by spatial attention.

    ``y = x * sigmoid(MLP(mean_hw(x)) + MLP(max_hw(x)))``, then
    ``out = y * sigmoid(BN(conv7x7([max_c(y), mean_c(y)])))``.

    Source: Woo et al., "CBAM: Convolutional Block Attention Module", ECCV 2018; reduction 16, kernel 7.
    """

    def __init__(self, channels: int, *, identity: bool = False) -> None:
        super().__init__()
        self.channel = ChannelGate(channels, identity=identity)
        self.spatial = SpatialGate(identity=identity)

    def forward(self, x: Tensor) -> Tensor:
        """Scale channels and positions of ``x`` (B, C, H, W); same shape."""
        x, mean, highest = pool_positions(x)
        y, pooled = scale_and_pool_channels(x, self.channel(mean, highest).to(x.dtype))
        return scale_positions(y, self.spatial(pooled).to(x.dtype))


class NonLocal(nn.Module):
    """Attention between all positions: ``x + BN(W_z softmax(theta(x)^T phi(x)) g(x))``, embedded Gaussian.

    theta, phi, g and W_z are 1x1 convolutions with C/2 inner channels. The softmax is over the positions of phi and g.
    The norm's scale is initialised to 0, so the block always starts as the identity.

    Source: Wang et al., "Non-local Neural Networks", CVPR 2018, section 3.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(channels // 2, 1)
        self.embed = nn.Conv2d(channels, 3 * inner, 1)  # theta, phi and g in one product
        self.project = nn.Conv2d(inner, channels, 1)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        theta, phi, g = self.embed(x).flatten(2).transpose(1, 2).chunk(3, dim=-1)  # B, HW, C/2 each
        # As in the paper, dot products are not divided by the square root of their length.
        attended = F.scaled_dot_product_attention(theta, phi, g, scale=1.0)  # B, HW, C/2
        attended = attended.transpose(1, 2).reshape(len(x), -1, *x.shape[2:])  # B, C/2, H, W
        out: Tensor = x + self.norm(self.project(attended))
        return out


class LocalSelfAttention(nn.Module):
    """Attention of each position to its 7x7 neighbourhood; replaces a 3x3 convolution.

    ``y_p = sum over n of softmax_n(q_p · k_n + q_p · r_{n - p}) v_n`` in each of 8 heads. ``r`` concatenates embeddings
    of the row offset and of the column offset, with half of the head's channels each. Neighbours outside the image are
    masked. q, k and v are 1x1 convolutions without bias. A stride is implemented by average pooling of the output.

    Source: Ramachandran et al., "Stand-Alone Self-Attention in Vision Models", NeurIPS 2019.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        """Initialise random weights.

        Args:
            inputs: number of input channels.
            outputs: number of output channels, a multiple of 16.
            stride: 1 or 2.

        Raises:
            InputError: ``outputs`` cannot be divided among the heads and the two axes.
        """
        super().__init__()
        if outputs % (2 * HEADS):
            raise InputError(
                f"params.yaml: attention self: every stage needs a multiple of {2 * HEADS} channels, not {outputs}"
            )
        self.project = nn.Conv2d(inputs, 3 * outputs, 1, bias=False)  # q, k and v in one product
        half = outputs // HEADS // 2
        self.rows = nn.Parameter(torch.randn(HEADS, half, NEIGHBOURHOOD, 1))
        self.columns = nn.Parameter(torch.randn(HEADS, half, 1, NEIGHBOURHOOD))
        self.pool: nn.Module = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        batch, _, height, width = x.shape
        q, k, v = self.project(x).view(batch, 3, HEADS, -1, height, width).unbind(1)  # B, heads, D, H, W each
        k, v = _padded(k), _padded(v)
        # A loop over offsets on shifted views: unfolding the neighbourhoods takes 49 times the memory and twice the
        # time.
        content = torch.stack([(q * neighbour).sum(2) for neighbour in _shifts(k)], dim=2)  # B, heads, 49, H, W
        logits = content + torch.einsum("bhdyx,hdn->bhnyx", q, self._offsets())
        inside = torch.stack(_shifts(_padded(torch.ones(height, width, device=x.device))))  # 49, H, W
        weights = logits.masked_fill(inside == 0, -torch.inf).softmax(dim=2)[:, :, :, None]
        y = torch.zeros_like(q)
        for weight, neighbour in zip(weights.unbind(2), _shifts(v), strict=True):
            y = torch.addcmul(y, weight, neighbour)
        out: Tensor = self.pool(y.reshape(batch, -1, height, width))
        return out

    def _offsets(self) -> Tensor:
        """Embeddings of the 49 offsets, (heads, D, 49), row by row."""
        rows = self.rows.expand(-1, -1, -1, NEIGHBOURHOOD)
        columns = self.columns.expand(-1, -1, NEIGHBOURHOOD, -1)
        return torch.cat((rows, columns), dim=1).flatten(2)


GATES: dict[str, type[Channel] | type[Spatial] | type[CBAM]] = {"channel": Channel, "spatial": Spatial, "cbam": CBAM}
"""Attention that is part of every residual block."""


def gate_layer(attention: str, init: str) -> Callable[..., nn.Module] | None:
    """Factory of the attention layer of timm's residual blocks, called with their channels; None without gates."""
    if attention not in GATES:
        return None

    def build(channels: int, **_: object) -> nn.Module:  # timm also passes a device and a dtype
        return GATES[attention](channels, identity=init == "identity")

    return build


def insert_attention(network: nn.Module, attention: str) -> None:
    """Insert non-local or self-attention into a ResNet created by timm; its weights keep their names."""
    if attention == "nonlocal":
        stages: Any = network.feature_info
        channels = {stage["module"]: stage["num_chs"] for stage in stages}
        for name in ("layer2", "layer3"):
            setattr(network, name, _with_non_local(network.get_submodule(name), channels[name]))
    if attention == "self":
        for name in ("layer1", "layer2", "layer3", "layer4"):
            for block in network.get_submodule(name).children():
                _replace_convolutions(block)


def stage_attention(attention: str, init: str, channels: int) -> nn.Module:
    """The attention, channel, spatial, cbam or nonlocal, that follows a stage with a number of output channels."""
    gate = gate_layer(attention, init)
    return NonLocal(channels) if gate is None else gate(channels)


class AttendAfter:
    """A forward hook that applies attention to all outputs of a module, which keeps its own weights and their names.

    An object and not a function, so that a copy of the network gets a hook with the copy of the attention.
    """

    def __init__(self, attention: nn.Module) -> None:
        self.attention = attention

    def __call__(self, _module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """The output of the module, (B, C, H, W), to the same shape."""
        found: Tensor = self.attention(output)
        return found


def _padded(x: Tensor) -> Tensor:
    """Pad (..., H, W) with zeros by the radius of a neighbourhood."""
    return F.pad(x, (NEIGHBOURHOOD // 2,) * 4)


def _shifts(padded: Tensor) -> list[Tensor]:
    """The values at each of the 49 offsets from every position, row by row: views (..., H, W)."""
    reach = NEIGHBOURHOOD - 1
    height, width = padded.shape[-2] - reach, padded.shape[-1] - reach
    return [
        padded[..., row : row + height, column : column + width]
        for row in range(NEIGHBOURHOOD)
        for column in range(NEIGHBOURHOOD)
    ]


def _with_non_local(stage: nn.Module, channels: int) -> nn.Sequential:
    """Insert a non-local block after every second residual block, counted from the last.

    As in the paper, a ResNet-50 gets two blocks in res3 and three in res4.
    """
    residual = list(stage.named_children())
    blocks: OrderedDict[str, nn.Module] = OrderedDict()
    for before_last, (name, block) in zip(reversed(range(len(residual))), residual, strict=True):
        blocks[name] = block
        if before_last % 2 == 0:
            blocks[f"{name}_nonlocal"] = NonLocal(channels)
    return nn.Sequential(blocks)


def _replace_convolutions(block: nn.Module) -> None:
    for name, conv in list(block.named_children()):
        if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3):
            setattr(block, name, LocalSelfAttention(conv.in_channels, conv.out_channels, conv.stride[0]))
