"""An attention autoencoder: a model's backbone reconstructs what is hidden of an image, and needs no label for it.

The loss is the mean squared error in the space of the network's normalised input. There, a channel has variance 1
whatever its exposure (``normalise: image``), and predicting a channel's mean has a loss of at most about 1.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.core import params
from pipeline.core.labels import CHANNELS
from pipeline.models.attention import Channel, Spatial
from pipeline.models.network import Network, Normalise
from pipeline.models.shared_batch import SampleRandom

PROTEIN = CHANNELS.index("green")
STRIDE = 2
"""Of the reconstruction. Full size would take about four times as long to decode, and its finest details are noise."""
WIDTHS = (64, 32, 16)
"""Channels of the decoder: while it joins feature maps of the encoder, and in the blocks after that."""


class Reconstruction(NamedTuple):
    """What the autoencoder has seen and made of images; all at half of their size, in the normalised space.

    Attributes:
        shown: (B, 4, h, w), the input of the encoder.
        target: (B, 4, h, w), the images.
        output: (B, 4, h, w), the reconstruction.
        scored: (B, 4, h, w), 1 where the loss compares output and target, otherwise 0.
    """

    shown: Tensor
    target: Tensor
    output: Tensor
    scored: Tensor

    def errors(self) -> Tensor:
        """Mean squared error of each image, (B,), over what is scored."""
        return self._mean_over_scored((self.output - self.target).square())

    def errors_of_the_mean(self) -> Tensor:
        """What ``errors`` would be if every pixel were predicted to be its channel's mean, (B,)."""
        return self._mean_over_scored(self.target.square())

    def _mean_over_scored(self, x: Tensor) -> Tensor:
        return (x * self.scored).sum((1, 2, 3)) / self.scored.sum((1, 2, 3))


class Denoise(SampleRandom):
    """Add Gaussian noise; everything is to be reconstructed.

    Source: Vincent et al., "Extracting and Composing Robust Features with Denoising Autoencoders", ICML 2008, and
    "Stacked Denoising Autoencoders", JMLR 2010, with Gaussian noise.
    """

    def __init__(self, deviation: float) -> None:
        super().__init__()
        self.deviation = deviation

    def forward(self, images: Tensor, normalise: Normalise) -> tuple[Tensor, Tensor]:
        """Images (B, 4, S, S) uint8 to the network's input, same shape, and what is scored, broadcastable to it."""
        x = normalise(images)
        rank, size = self.part
        # Of the whole batch, as ``SampleRandom.uniform``, so that several processes draw what one would.
        noise = torch.randn(len(x) * size, *x.shape[1:], device=x.device)[rank::size]
        return x + self.deviation * noise, torch.ones_like(x[:, :1])


class MaskPatches(SampleRandom):
    """Hide random patches in all channels: they become the mean of what is visible, and are to be reconstructed.

    The same number of patches is hidden in each image. The statistics of normalisation are those of the visible pixels,
    so that the input does not depend on hidden ones.

    Sources: Pathak et al., "Context Encoders", CVPR 2016; He et al., "Masked Autoencoders Are Scalable Vision
    Learners", CVPR 2022, whose encoder leaves hidden patches out. Convolutions cannot: they see a constant instead, as
    in Xie et al., "SimMIM", CVPR 2022.
    """

    def __init__(self, share: float, patch: int) -> None:
        super().__init__()
        self.share = share
        self.patch = patch

    def forward(self, images: Tensor, normalise: Normalise) -> tuple[Tensor, Tensor]:
        """As ``Denoise.forward``."""
        return self.hide(images, normalise, self.draw(images))

    def draw(self, images: Tensor) -> Tensor:
        """Which pixels of (B, 4, S, S) to hide: (B, 1, S, S), 1 for hidden."""
        height, width = images.shape[-2:]
        rows, columns = math.ceil(height / self.patch), math.ceil(width / self.patch)
        hidden = min(max(round(self.share * rows * columns), 1), max(rows * columns - 1, 1))
        ranks = self.uniform(images, rows * columns).argsort(dim=1).argsort(dim=1)
        mask = (ranks < hidden).view(-1, 1, rows, columns).float()
        mask = mask.repeat_interleave(self.patch, 2).repeat_interleave(self.patch, 3)
        return mask[..., :height, :width]

    def hide(self, images: Tensor, normalise: Normalise, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """As ``forward``, with the pixels to hide, (B, 1, S, S)."""
        visible = 1 - hidden
        x = images.float()
        if not normalise.per_image:
            return normalise(x) * visible, hidden
        area = visible.sum((2, 3), keepdim=True)
        mean = (x * visible).sum((2, 3), keepdim=True) / area.clamp_min(1)
        # Pixels that equal the mean leave it as it is and reduce the variance, by the share of the others.
        filled = normalise(torch.where(hidden > 0, mean, x))
        return filled * visible * visible.mean((2, 3), keepdim=True).sqrt(), hidden


class HideProtein(nn.Module):
    """Hide the protein's channel, which is to be reconstructed from the three reference stains.

    Sources: Zhang et al., "Split-Brain Autoencoders", CVPR 2017 (channels from other channels); Ounkomol et al.,
    "Label-free prediction of three-dimensional fluorescence images", Nature Methods 2018 (stains from other images).
    """

    def forward(self, images: Tensor, normalise: Normalise) -> tuple[Tensor, Tensor]:
        """As ``Denoise.forward``."""
        hidden = torch.zeros(1, len(CHANNELS), 1, 1, device=images.device)
        hidden[:, PROTEIN] = 1
        return normalise(images) * (1 - hidden), hidden


class UpsamplingBlock(nn.Module):
    """Enlarge a feature map, join one of the encoder, convolve, and attend to channels and positions.

    Enlarging by nearest neighbours before a convolution avoids the checkerboard of transposed convolutions (Odena et
    al., "Deconvolution and Checkerboard Artifacts", Distill 2016).
    """

    def __init__(self, inputs: int, joined: int, outputs: int) -> None:
        """Initialise random weights.

        Args:
            inputs: channels of the map to enlarge.
            joined: channels of the encoder's map; 0 for none.
            outputs: channels of the result.
        """
        super().__init__()
        self.conv = nn.Conv2d(inputs + joined, outputs, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.channel = Channel(outputs, identity=True)
        self.spatial = Spatial(outputs, identity=True)

    def forward(self, x: Tensor, size: tuple[int, int], *joined: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, outputs, *size), with at most one map (B, joined, *size)."""
        enlarged = torch.cat([F.interpolate(x, size), *joined], dim=1)
        found: Tensor = self.spatial(self.channel(F.relu(self.norm(self.conv(enlarged)))))
        return found


class Decoder(nn.Module):
    """Blocks from the encoder's coarsest feature map over its finer ones to an image of half the input's size."""

    def __init__(self, channels: tuple[int, ...], stride: int) -> None:
        """Initialise random weights.

        Args:
            channels: of the encoder's feature maps, finest first.
            stride: of the finest one.
        """
        super().__init__()
        last, *finer = reversed(channels)
        self.joining, self.enlarging = nn.ModuleList(), nn.ModuleList()
        for joined in finer:
            self.joining.append(UpsamplingBlock(last, joined, WIDTHS[0]))
            last = WIDTHS[0]
        for number in range(max(math.ceil(math.log2(stride / STRIDE)), 1)):
            width = WIDTHS[min(number + 1, len(WIDTHS) - 1)]
            self.enlarging.append(UpsamplingBlock(last, 0, width))
            last = width
        self.pixels = nn.Conv2d(last, len(CHANNELS), 1)

    def forward(self, maps: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Feature maps, finest first, to (B, 4, *size)."""
        x, *finer = reversed(maps)
        for block, joined in zip(self.joining, finer, strict=True):
            x = block(x, (joined.shape[-2], joined.shape[-1]), joined)
        for after, block in zip(reversed(range(len(self.enlarging))), self.enlarging, strict=True):
            x = block(x, (math.ceil(size[0] / 2**after), math.ceil(size[1] / 2**after)))
        found: Tensor = self.pixels(x)
        return found


def _corruption(task: params.Pretrain) -> nn.Module:
    match task.objective:
        case "denoise":
            return Denoise(task.noise)
        case "masked":
            return MaskPatches(task.mask_share, task.mask_patch)
        case "protein":
            return HideProtein()


class Autoencoder(nn.Module):
    """A network's normalisation and backbone, with its attention, and a decoder in place of its head.

    The decoder sees the feature maps that the head would see at most: those of the last three stages.
    """

    def __init__(self, network: Network, task: params.Pretrain) -> None:
        """Take over the parts of a network, which starts with their weights, and add a decoder of random weights.

        Args:
            network: with its initial statistics set. ``augment.gain`` must be 1: a random brightness cannot be
                reconstructed.
            task: the objective.
        """
        super().__init__()
        self.normalise, self.backbone, self.stages = network.normalise, network.backbone, network.stages
        self.corruption = _corruption(task)
        self.decoder = Decoder(self.stages.channels, self.stages.stride(self.backbone))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 4, S, S) uint8 to the error of each image, (B,) float32."""
        return self.reconstruct(images).errors()

    def reconstruct(self, images: Tensor) -> Reconstruction:
        """Corrupt images (B, 4, S, S) uint8, and reconstruct them."""
        shown, scored = self.corruption(images, self.normalise)
        target = F.avg_pool2d(self.normalise(images), STRIDE)
        scored = F.avg_pool2d(scored.expand_as(shown), STRIDE)
        return Reconstruction(F.avg_pool2d(shown, STRIDE), target, self.decode(shown).float(), scored)

    def decode(self, shown: Tensor) -> Tensor:
        """The output (B, 4, S / 2, S / 2) for an input (B, 4, S, S)."""
        maps = self.stages.maps(self.backbone, shown.contiguous(memory_format=torch.channels_last))
        found: Tensor = self.decoder(maps, (shown.shape[-2] // STRIDE, shown.shape[-1] // STRIDE))
        return found

    def encoder_weights(self) -> dict[str, Tensor]:
        """The weights of the backbone, under the names that they have in ``Network``."""
        return {name: value for name, value in self.state_dict().items() if name.startswith("backbone.")}
