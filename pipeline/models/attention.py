"""Visual attention for any timm ResNet: channel, spatial, CBAM, non-local and local self-attention.

Gates (channel, spatial, CBAM) go into every residual block, after its last norm and before the residual sum.
Non-local blocks stand between residual blocks, and self-attention replaces their 3x3 convolutions: ``attend``
puts both into a network that timm has made.

Where a network starts: ``paper`` is the published initialisation, whose gates begin near a half and so damp
each residual branch, of a pre-trained network too. ``identity`` begins with gates of exactly 1: they are twice
the sigmoid of what a last layer of zeros says, a factor that the weights behind can absorb.
"""

from collections import OrderedDict
from collections.abc import Callable

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
    """A gate for each feature map from what is pooled over the image.

    ``scale * sigmoid(sum over poolings of MLP(pooled))`` with one MLP (C -> C/16 -> C, ReLU, biases) that the
    poolings share. ``scale`` is 1 as published, 2 where the gates start at 1.
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
        """Pooled features, (B, C) each, to the gate (B, C)."""
        logits = self.excite(F.relu(self.squeeze(torch.stack(pooled))))  # poolings, B, C
        return self.scale * torch.sigmoid(logits.sum(0))


class SpatialGate(nn.Module):
    """A gate for each position from what is pooled over the channels.

    ``scale * sigmoid(BN(conv7x7([max, mean])))``, the convolution without bias.
    """

    def __init__(self, *, identity: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, KERNEL, padding=KERNEL // 2, bias=False)
        self.norm = nn.BatchNorm2d(1)
        self.scale = 2 if identity else 1
        if identity:
            nn.init.zeros_(self.norm.weight)

    def forward(self, pooled: Tensor) -> Tensor:
        """[max, mean] over the channels, (B, 2, H, W), to the gate (B, 1, H, W)."""
        gate_layer: Tensor = self.scale * torch.sigmoid(self.norm(self.conv(pooled)))
        return gate_layer


class Channel(nn.Module):
    """Squeeze and excitation: ``x * gate(mean over positions)``.

    Source: Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018; reduction 16, layers with biases.
    """

    def __init__(self, channels: int, *, identity: bool = False) -> None:
        super().__init__()
        self.gate = ChannelGate(channels, identity=identity)

    def forward(self, x: Tensor) -> Tensor:
        """Re-weigh the feature maps of ``x`` (B, C, H, W); same shape."""
        gate_layer: Tensor = self.gate(x.mean((2, 3)))  # B, C
        return x * gate_layer.to(x.dtype)[:, :, None, None]


class Spatial(nn.Module):
    """CBAM's spatial half alone: ``x * gate([max, mean] over channels)``.

    Source: Woo et al., "CBAM: Convolutional Block Attention Module", ECCV 2018, section 3.2.
    """

    def __init__(self, _channels: int, *, identity: bool = False) -> None:
        super().__init__()
        self.gate = SpatialGate(identity=identity)

    def forward(self, x: Tensor) -> Tensor:
        """Re-weigh the positions of ``x`` (B, C, H, W); same shape."""
        x, pooled = scale_and_pool_channels(x, torch.ones_like(x[:, :, 0, 0]))
        return scale_positions(x, self.gate(pooled).to(x.dtype))


class CBAM(nn.Module):
    """Channel gate, then spatial gate.

    ``y = x * sigmoid(MLP(mean_hw(x)) + MLP(max_hw(x)))``, then
    ``out = y * sigmoid(BN(conv7x7([max_c(y), mean_c(y)])))``.

    Source: Woo et al., "CBAM: Convolutional Block Attention Module", ECCV 2018; reduction 16, kernel 7.
    """

    def __init__(self, channels: int, *, identity: bool = False) -> None:
        super().__init__()
        self.channel = ChannelGate(channels, identity=identity)
        self.spatial = SpatialGate(identity=identity)

    def forward(self, x: Tensor) -> Tensor:
        """Re-weigh ``x`` (B, C, H, W); same shape."""
        x, mean, highest = pool_positions(x)
        y, pooled = scale_and_pool_channels(x, self.channel(mean, highest).to(x.dtype))
        return scale_positions(y, self.spatial(pooled).to(x.dtype))


class NonLocal(nn.Module):
    """Every position looks at every other: ``x + BN(W_z softmax(theta(x)^T phi(x)) g(x))``, embedded Gaussian.

    theta, phi, g and W_z are 1x1 convolutions through C/2 channels, the softmax runs over the positions of phi
    and g. The norm's scale starts at 0, so that the block starts as the identity in any case.

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
        # The paper's dot products are not divided by the square root of their length.
        looked = F.scaled_dot_product_attention(theta, phi, g, scale=1.0)  # B, HW, C/2
        looked = looked.transpose(1, 2).reshape(len(x), -1, *x.shape[2:])  # B, C/2, H, W
        out: Tensor = x + self.norm(self.project(looked))
        return out


class LocalSelfAttention(nn.Module):
    """Every position looks at its 7x7 neighbourhood, in the place of a 3x3 convolution.

    ``y_p = sum over n of softmax_n(q_p · k_n + q_p · r_{n - p}) v_n`` in each of 8 heads, where ``r`` joins an
    embedding of the row offset and one of the column offset, half the head's channels each. Neighbours beyond
    the image are left out. q, k and v are 1x1 convolutions without bias. A stride is an average pooling of what
    comes out.

    Source: Ramachandran et al., "Stand-Alone Self-Attention in Vision Models", NeurIPS 2019.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        """Fresh weights.

        Args:
            inputs: channels that come in.
            outputs: channels that go out; a multiple of 16.
            stride: 1 or 2.

        Raises:
            InputError: the channels cannot be split among the heads and the two axes.
        """
        super().__init__()
        if outputs % (2 * HEADS):
            raise InputError(
                f"params.yaml: attention self needs stages of a multiple of {2 * HEADS} channels, not {outputs}"
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
        # Offset by offset, on shifted views: laying the neighbourhoods out takes 49 times the memory and twice the
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


def _padded(x: Tensor) -> Tensor:
    """(..., H, W) with zeros around, as far as a neighbourhood reaches."""
    return F.pad(x, (NEIGHBOURHOOD // 2,) * 4)


def _shifts(padded: Tensor) -> list[Tensor]:
    """What stands at each of the 49 offsets from every position, row by row: views (..., H, W)."""
    reach = NEIGHBOURHOOD - 1
    height, width = padded.shape[-2] - reach, padded.shape[-1] - reach
    return [
        padded[..., row : row + height, column : column + width]
        for row in range(NEIGHBOURHOOD)
        for column in range(NEIGHBOURHOOD)
    ]


GATES: dict[str, type[Channel] | type[Spatial] | type[CBAM]] = {"channel": Channel, "spatial": Spatial, "cbam": CBAM}
"""What goes into every residual block."""


def gate_layer(attention: str, init: str) -> Callable[..., nn.Module] | None:
    """What timm shall put into each residual block, called with its channels; None if that is nothing."""
    if attention not in GATES:
        return None

    def build(channels: int, **_: object) -> nn.Module:  # timm also names a device and a type
        return GATES[attention](channels, identity=init == "identity")

    return build


def insert_attention(network: nn.Module, attention: str) -> None:
    """Put what is no gate into a ResNet that timm has made; its weights keep their names."""
    if attention == "nonlocal":
        for name in ("layer2", "layer3"):
            setattr(network, name, _with_non_local(network.get_submodule(name)))
    if attention == "self":
        for name in ("layer1", "layer2", "layer3", "layer4"):
            for block in network.get_submodule(name).children():
                _replace_convolutions(block)


def _with_non_local(stage: nn.Module) -> nn.Sequential:
    """A non-local block after every other residual block, counted from the last.

    In a ResNet-50 these are two in the paper's res3 and three in its res4, as there.
    """
    residual = list(stage.named_children())
    blocks: OrderedDict[str, nn.Module] = OrderedDict()
    for before_last, (name, block) in zip(reversed(range(len(residual))), residual, strict=True):
        blocks[name] = block
        if before_last % 2 == 0:
            blocks[f"{name}_nonlocal"] = NonLocal(_channels(block))
    return nn.Sequential(blocks)


def _channels(block: nn.Module) -> int:
    """How many channels a residual block gives out."""
    return [module.num_features for module in block.modules() if isinstance(module, nn.BatchNorm2d)][-1]


def _replace_convolutions(block: nn.Module) -> None:
    for name, conv in list(block.named_children()):
        if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3):
            setattr(block, name, LocalSelfAttention(conv.in_channels, conv.out_channels, conv.stride[0]))
