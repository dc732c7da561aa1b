"""The network: a timm ResNet with attention, from uint8 images to 28 logits. The only module that uses timm."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from http.client import HTTPException
from ssl import SSLError
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import timm
import torch
from huggingface_hub import constants as hub
from timm.layers.norm_act import convert_sync_batchnorm
from timm.models.resnet import ResNet
from torch import Tensor, nn

from pipeline.core import hardware, params
from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS, LABELS
from pipeline.core.progress import say
from pipeline.models.attention import gate_layer, insert_attention
from pipeline.models.heads import POOLINGS, KernelHead, LabelQueries, Pyramid, pool_stages
from pipeline.models.shared_batch import Dropout, SampleRandom, SharedBatchNorm, share_random

MIN_STD = 4 / 255
"""Lower limit of a channel's standard deviation, so that the noise of empty channels is not amplified."""

HUB_SECONDS = 5
"""How long the hub may take for its first answer."""

STAGES = 3
"""Number of last stages of the backbone whose features the kernel head and the pyramid use."""


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
    """Normalisation, a timm ResNet with attention, and a head that returns 28 logits.

    The pooled head is concatenated average and max pooling, dropout, and one linear layer. The kernel head uses
    features of the last three stages, because the last stage was trained on other images and may have lost information
    about the new ones.
    """

    def __init__(self, model: params.BackboneModel) -> None:
        """Build the network with random weights.

        Raises:
            InputError: ``backbone`` is not a ResNet of timm, or its channels do not fit attention or head.
        """
        super().__init__()
        self.normalise = Normalise(model.normalise, model.augment.gain)
        self.backbone = _backbone(model)
        self.dropout = Dropout(model.dropout if isinstance(model, params.NetworkModel) else 0)
        widths: list[Any] = [stage["num_chs"] for stage in self.backbone.feature_info[-STAGES:]]
        self.pyramid = self.queries = None
        if isinstance(model, params.NetworkModel) and model.head == "label_queries":
            if model.pyramid:
                self.pyramid = Pyramid(widths, model.pyramid)
            levels, channels = (STAGES, model.pyramid) if model.pyramid else (1, widths[-1])
            self.queries = LabelQueries(channels, levels, model.dropout)
        self.kernel = KernelHead(POOLINGS * sum(widths)) if isinstance(model, params.FrozenModel) else None

    def forward(self, images: Tensor) -> Tensor:
        """(B, 4, H, W) uint8 to logits (B, 28)."""
        if self.kernel is not None:
            found: Tensor = self.kernel(self.head_features(images))
            return found
        levels = self.levels(images)
        if self.queries is not None:
            logits: Tensor = self.queries(levels)
        else:
            pooled = self.dropout(self.backbone.forward_head(levels[-1], pre_logits=True))
            with torch.autocast(pooled.device.type, enabled=False):  # see LabelQueries
                logits = self.backbone.get_classifier()(pooled.float())
        return logits

    def levels(self, images: Tensor) -> list[Tensor]:
        """(B, 4, H, W) uint8 to the feature maps that the head reads, finest first.

        With a pyramid, its levels, (B, pyramid, H / 8, W / 8) to (B, pyramid, H / 32, W / 32); otherwise the last
        stage's map alone, (B, C, H / 32, W / 32).
        """
        if self.pyramid is None:
            return [self.backbone.forward_features(self._normalised(images))]
        _, stages = self.backbone.forward_intermediates(self._normalised(images), indices=STAGES)
        found: list[Tensor] = self.pyramid(stages)
        return found

    def head_features(self, images: Tensor) -> Tensor:
        """(B, 4, H, W) uint8 to the input of the kernel head: pooled feature maps of the last three stages, (B, F)."""
        _, stages = self.backbone.forward_intermediates(self._normalised(images), indices=STAGES)
        return pool_stages(stages)

    def _normalised(self, images: Tensor) -> Tensor:
        found: Tensor = self.normalise(images)
        return found.contiguous(memory_format=torch.channels_last)

    @property
    def stem(self) -> str:
        """Name of the backbone's first convolution."""
        names: list[str] = [name for name, part in self.backbone.named_modules() if isinstance(part, nn.Conv2d)]
        return names[0]

    @torch.no_grad()
    def initialise(self, prior: Tensor, mean: Tensor, std: Tensor) -> None:
        """Initialise the head's bias and the statistics for normalisation.

        Args:
            prior: (28,) share of training samples with each label. The bias is set to its logit, so that the first
                predictions are the label frequencies and the first loss is small. The kernel head has no bias.
            mean: (4,) channel means of the training images, as fractions of 255.
            std: (4,) channel standard deviations, likewise.
        """
        head = self.backbone.get_classifier() if self.queries is None else self.queries
        if isinstance(head, nn.Linear | LabelQueries):
            head.bias.copy_(torch.logit(prior, eps=1e-3))
        self.normalise.mean.copy_(mean)
        self.normalise.std.copy_(std)


def compute_type(precision: params.Precision) -> torch.dtype:
    """The type in which the forward pass computes: float32, bfloat16 or float16.

    ``auto`` is bfloat16 if the hardware supports it natively (GPUs since 2020, CPUs with AMX), float16 on older GPUs,
    and float32 elsewhere: other CPUs would emulate both and be slower.
    """
    if precision != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    kind = hardware.device().type
    if kind == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    native = kind == "cpu" and torch.cpu.get_capabilities().get("amx_bf16", False)
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


def share_batches(network: Network, rank: int, size: int) -> Network:
    """Make several processes compute what one would, where each has every ``size``-th sample of each batch.

    Random numbers become those of the whole batch, and batch norm uses the statistics of all processes. The weights
    stay the same tensors.

    Args:
        network: changed in place.
        rank: of this process.
        size: number of processes.
    """
    share_random(network, rank, size)
    if hardware.device().type == "cuda":
        shared: Network = convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return shared
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = SharedBatchNorm
    return network


def hub_weights(backbone: str) -> dict[str, Tensor]:
    """Pretrained weights of timm for photographs (three channels), from its cache or from the hub.

    Raises:
        InputError: timm has none for this backbone, or the hub cannot be reached.
    """
    if not timm.is_model_pretrained(backbone):
        raise InputError(f"params.yaml: timm has no weights for {backbone!r}: name a file in pretrained, or false")
    say(f"getting the weights of {backbone} from {hub.ENDPOINT}, or from the cache if it cannot be reached")
    try:
        with _offline_unless_reachable():
            return dict(timm.create_model(backbone, pretrained=True).state_dict())
    except OSError as error:
        raise InputError(
            f"params.yaml: pretrained: true needs the weights of {backbone} from the hub, which cannot be downloaded "
            f"({type(error).__name__}): connect to the network, or name a file in pretrained"
        ) from None


@contextmanager
def _offline_unless_reachable() -> Iterator[None]:
    """Use the cache alone if the hub does not answer within seconds: the library itself asks for a minute."""
    before = hub.HF_HUB_OFFLINE
    if not before:
        try:
            with urlopen(Request(hub.ENDPOINT, method="HEAD"), timeout=HUB_SECONDS):
                pass
        except (HTTPError, HTTPException, ValueError):
            pass  # an answer, or something that the library explains better
        except OSError as error:
            # The library has certificates of its own, which may suffice where the system's do not.
            hub.HF_HUB_OFFLINE = not isinstance(getattr(error, "reason", error), SSLError)
    try:
        yield
    finally:
        hub.HF_HUB_OFFLINE = before


def _backbone(model: params.BackboneModel) -> ResNet:
    if not timm.is_model(model.backbone) or timm.model_entrypoint(model.backbone).__module__ != ResNet.__module__:
        raise InputError(f"params.yaml: backbone {model.backbone!r} is not a ResNet of timm: try resnet18 or resnet34")
    options: dict[str, Any] = {} if model.widths is None else {"channels": model.widths}
    if (gate := gate_layer(model.attention, model.gate_init)) is not None:
        options["block_args"] = {"attn_layer": gate}  # without this, a backbone's own attention stays
    # A location may be one bright spot in the image, which average pooling loses; therefore max pooling as well.
    head: dict[str, Any] = {"num_classes": 0, "global_pool": ""}
    if isinstance(model, params.NetworkModel) and model.head == "pooled":
        head = {"num_classes": len(LABELS), "global_pool": "catavgmax"}
    net = timm.create_model(
        model.backbone,
        pretrained=False,
        in_chans=len(CHANNELS),
        **head,
        **options,
    )
    assert isinstance(net, ResNet)  # for the type checker
    insert_attention(net, model.attention)
    return net
