"""The network: a backbone with attention and a head, from uint8 images to 28 logits."""

from contextlib import AbstractContextManager
from typing import TypeVar

import torch
from torch import Tensor, nn

from pipeline.core import hardware, params
from pipeline.core.labels import CHANNELS
from pipeline.models import backbones
from pipeline.models.heads import POOLINGS, KernelHead, LabelQueries, PooledHead, Pyramid, pool_stages
from pipeline.models.shared_batch import SampleRandom, share_random

AnyNetwork = TypeVar("AnyNetwork", bound=nn.Module)

MIN_STD = 4 / 255
"""Lower limit of a channel's standard deviation, so that the noise of empty channels is not amplified."""


class Normalise(SampleRandom):
    """Normalise uint8 (B, 4, H, W) to float32 with mean 0 and standard deviation 1 per channel.

    ``image`` uses the statistics of each image, which cancels differences in exposure between training and test
    images. ``dataset`` uses fixed statistics, which are stored with the weights.

    In training mode, each channel of each image is then multiplied by a random factor, drawn log-uniformly from
    1/``gain`` to ``gain``: before normalisation by image, it would have no effect.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mode: str, gain: float) -> None:
        super().__init__()
        self.per_image = mode == "image"
        self.gain = gain
        self.register_buffer("mean", torch.zeros(len(CHANNELS)))
        self.register_buffer("std", torch.ones(len(CHANNELS)))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 4, H, W) uint8 to (B, 4, H, W) float32."""
        x = images.float() / 255
        if self.per_image:
            var, mean = torch.var_mean(x, dim=(2, 3), keepdim=True, correction=0)  # B, 4, 1, 1
            std = var.sqrt()
        else:
            mean, std = self.mean[:, None, None], self.std[:, None, None]
        scale = 1 / std.clamp_min(MIN_STD)
        if self.training and self.gain > 1:
            scale = scale * self.gain ** (2 * self.uniform(x, x.shape[1], 1, 1) - 1)
        return (x - mean) * scale


class Network(nn.Module):
    """Normalisation, a backbone of timm with attention, and a head that returns 28 logits.

    A pooled head and label queries without a pyramid see the last stage alone. The kernel head and the pyramid use the
    last three stages; the kernel head because the last one was trained on other images and may have lost information
    about the new ones.
    """

    def __init__(self, model: params.BackboneModel) -> None:
        """Build the network with random weights.

        Raises:
            InputError: timm has no such backbone, or its channels do not fit attention or head.
        """
        super().__init__()
        self.normalise = Normalise(model.normalise, model.augment.gain)
        self.backbone, self.stages = backbones.create(model)
        widths = self.stages.channels
        self.pyramid = self.pooled = self.queries = self.kernel = None
        if not isinstance(model, params.NetworkModel):
            self.kernel = KernelHead(POOLINGS * sum(widths))
        elif model.head == "pooled":
            self.pooled = PooledHead(widths[-1], model.dropout)
        else:
            if model.pyramid:
                self.pyramid = Pyramid(widths, model.pyramid)
            levels, channels = (len(widths), model.pyramid) if model.pyramid else (1, widths[-1])
            hard = model.head == "hard_label_queries"
            self.queries = LabelQueries(channels, levels, model.dropout, hard=hard)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 4, H, W) uint8 to logits (B, 28)."""
        return self.logits(self.feature_maps(images))

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """(B, 4, H, W) uint8 to the feature maps of the backbone's last three stages, finest first.

        They are (B, C_i, H_i, W_i), in most backbones of strides 8, 16 and 32; some transformers have a single one.
        """
        normalised: Tensor = self.normalise(images)
        return self.stages.maps(self.backbone, normalised.contiguous(memory_format=torch.channels_last))

    def logits(self, maps: list[Tensor]) -> Tensor:
        """The logits (B, 28) of what ``feature_maps`` returned."""
        if self.kernel is not None:
            found: Tensor = self.kernel(pool_stages(maps))
            return found
        return self.logits_of_levels(self.head_levels(maps))

    def head_levels(self, maps: list[Tensor]) -> list[Tensor]:
        """The feature maps that the head sees, finest first: the pyramid's levels, or else the last stage alone."""
        if self.pyramid is None:
            return maps[-1:]
        found: list[Tensor] = self.pyramid(maps)
        return found

    def logits_of_levels(self, levels: list[Tensor]) -> Tensor:
        """The logits (B, 28) of what ``head_levels`` returned."""
        head = self.pooled if self.queries is None else self.queries
        assert head is not None  # for the type checker: the kernel head sees no levels
        found: Tensor = head(levels)
        return found

    def levels(self, images: Tensor) -> list[Tensor]:
        """(B, 4, H, W) uint8 to what ``head_levels`` returns."""
        return self.head_levels(self.feature_maps(images))

    def head_features(self, images: Tensor) -> Tensor:
        """(B, 4, H, W) uint8 to the input of the kernel head: pooled feature maps of the last stages, (B, F)."""
        return pool_stages(self.feature_maps(images))

    @property
    def stem(self) -> str:
        """Name of the backbone's first convolution."""
        return backbones.first_convolution(self.backbone)

    @torch.no_grad()
    def initialise(self, prior: Tensor, mean: Tensor, std: Tensor) -> None:
        """Initialise the head's bias and the statistics for normalisation.

        Args:
            prior: (28,) share of training samples with each label. The bias is set to its logit, so that the first
                predictions are the label frequencies and the first loss is small. The kernel head has no bias.
            mean: (4,) channel means of the training images, as fractions of 255.
            std: (4,) channel standard deviations, likewise.
        """
        head = self.pooled if self.queries is None else self.queries
        if head is not None:
            head.bias.copy_(torch.logit(prior, eps=1e-3))
        self.normalise.mean.copy_(mean)
        self.normalise.std.copy_(std)


def compute_type(precision: params.Precision) -> torch.dtype:
    """The type in which the forward pass computes: float32, bfloat16 or float16.

    ``auto`` is bfloat16 if the hardware supports it natively (GPUs since 2020, CPUs with AMX or AVX-512 BF16), float16
    on older GPUs, and float32 elsewhere: other CPUs would emulate both and be slower.
    """
    if precision != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    kind = hardware.device().type
    if kind == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    capable = torch.cpu.get_capabilities() if kind == "cpu" else {}
    native = any(capable.get(name, False) for name in ("amx_bf16", "avx512_bf16"))
    return torch.bfloat16 if native else torch.float32


def autocast(precision: params.Precision) -> AbstractContextManager[object]:
    """Mixed precision for the forward pass: weights stay float32.

    bfloat16 has the range of float32. float16 does not: in training its gradients need to be scaled
    (``training.step.Learner``).
    """
    dtype, kind = compute_type(precision), hardware.device().type
    if dtype == torch.float32:
        return torch.autocast(kind, enabled=False)
    return torch.autocast(kind, dtype=dtype)


def share_batches(network: AnyNetwork, rank: int, size: int) -> AnyNetwork:
    """Make several processes compute what one would, where each has every ``size``-th sample of each batch.

    Random numbers become those of the whole batch, and batch norm uses the statistics of all processes. The weights
    stay the same tensors.

    Args:
        network: changed in place.
        rank: of this process.
        size: number of processes.
    """
    share_random(network, rank, size)
    backbones.share_batch_norm(network)
    return network
