"""Attention blocks that go into any ResNet block, after its last norm and before the residual sum."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

REDUCTION = 16
KERNEL = 7


class ChannelGate(nn.Module):
    """CBAM's channel half: which feature maps matter in this image.

    ``sigmoid(MLP(avgpool(x)) + MLP(maxpool(x)))`` with one two-layer MLP (C -> C/16 -> C, ReLU, biases)
    shared by both poolings.

    Source: Woo et al., "CBAM: Convolutional Block Attention Module", ECCV 2018, section 3.1.
    """

    def __init__(self, channels: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        hidden = max(channels // REDUCTION, 1)
        self.squeeze = nn.Linear(channels, hidden, device=device, dtype=dtype)
        self.excite = nn.Linear(hidden, channels, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Gate for ``x`` (B, C, H, W): (B, C, 1, 1) in 0..1."""
        # Torch's pooling hands its gradient to one position; amax would compare every value with the maximum again.
        pooled = torch.stack((x.mean((2, 3)), F.adaptive_max_pool2d(x, 1).flatten(1)))  # 2, B, C
        hidden = F.relu(self.squeeze(pooled))  # 2, B, C/16
        # The last layer is linear, so one product of the summed hidden units serves both branches
        # once the bias, which the sum needs twice, is added back.
        logits = F.linear(hidden.sum(0), self.excite.weight, 2 * self.excite.bias)  # B, C
        return torch.sigmoid(logits)[:, :, None, None]


class SpatialGate(nn.Module):
    """CBAM's spatial half: which positions matter in this image.

    ``sigmoid(BN(conv7x7([max_c(x), mean_c(x)])))``, the convolution without bias.

    Source: Woo et al., ECCV 2018, section 3.2.
    """

    def __init__(self, *, device: torch.device | None = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, KERNEL, padding=KERNEL // 2, bias=False, device=device, dtype=dtype)
        self.norm = nn.BatchNorm2d(1, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Gate for ``x`` (B, C, H, W): (B, 1, H, W) in 0..1."""
        pooled = torch.cat((x.amax(1, keepdim=True), x.mean(1, keepdim=True)), dim=1)  # B, 2, H, W
        gate: Tensor = torch.sigmoid(self.norm(self.conv(pooled)))
        return gate


class CBAM(nn.Module):
    """Channel gate, then spatial gate: ``y = x * channel(x)``, ``out = y * spatial(y)``.

    Source: Woo et al., "CBAM: Convolutional Block Attention Module", ECCV 2018; reduction 16, kernel 7.
    """

    def __init__(self, channels: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.channel = ChannelGate(channels, device=device, dtype=dtype)
        self.spatial = SpatialGate(device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Re-weigh ``x`` (B, C, H, W); same shape."""
        x = x * self.channel(x)
        out: Tensor = x * self.spatial(x)
        return out


ATTENTION: dict[str, type[nn.Module] | None] = {"none": None, "cbam": CBAM}
