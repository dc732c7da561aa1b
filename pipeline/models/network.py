"""The network: uint8 images in, 28 logits out. The only module that knows timm."""

from contextlib import AbstractContextManager
from typing import Any, TypeGuard

import timm
import torch
from timm.layers.norm_act import convert_sync_batchnorm
from timm.models.resnet import ResNet
from torch import Tensor, nn

from pipeline.core import hardware, params
from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS, LABELS
from pipeline.models.attention import gate_layer, insert_attention
from pipeline.models.heads import POOLINGS, KernelHead, LabelQueries, pool_stages

MIN_STD = 4 / 255
"""Spread below which a channel counts as empty: its read-out noise is not blown up to full contrast."""

STAGES = 3
"""The last stages that the kernel head sees."""


class Normalise(nn.Module):
    """uint8 (B, 4, H, W) to float32 of mean 0 and spread 1 per channel.

    ``image``: each image by its own mean and spread, which cancels the difference in exposure between
    training and test images. ``dataset``: by fixed statistics, stored with the weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.per_image = mode == "image"
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
        return (x - mean) / std.clamp_min(MIN_STD)


class Network(nn.Module):
    """Normalisation, a timm ResNet with attention, and a head that gives 28 logits.

    The pooled head is timm's own: average and max pooling joined, dropout, one linear layer. The kernel head sees the
    stages before the last one too: this one was never trained to pass on what tells the samples at hand.
    """

    def __init__(self, model: params.BackboneModel) -> None:
        """Build the network with fresh weights.

        Raises:
            InputError: ``backbone`` is not a ResNet of timm, or does not fit the head.
        """
        super().__init__()
        self.normalise = Normalise(model.normalise)
        self.backbone = _backbone(model)
        self.queries = LabelQueries(self.backbone.num_features, model.dropout) if _has_queries(model) else None
        widths: Any = [stage["num_chs"] for stage in self.backbone.feature_info[-STAGES:]]
        self.kernel = KernelHead(POOLINGS * sum(widths)) if isinstance(model, params.FrozenModel) else None

    def forward(self, images: Tensor) -> Tensor:
        """(B, 4, H, W) uint8 to logits (B, 28)."""
        if self.kernel is not None:
            found: Tensor = self.kernel(self.head_features(images))
            return found
        x = self.feature_map(images)
        logits: Tensor = self.backbone.forward_head(x) if self.queries is None else self.queries(x)
        return logits

    def feature_map(self, images: Tensor) -> Tensor:
        """(B, 4, H, W) uint8 to the last stage's feature map, (B, C, H / 32, W / 32)."""
        features: Tensor = self.backbone.forward_features(self._normalised(images))
        return features

    def head_features(self, images: Tensor) -> Tensor:
        """(B, 4, H, W) uint8 to what the kernel head takes: pooled maps of the last three stages, (B, F)."""
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
        """Set what training begins with.

        Args:
            prior: (28,) share of training samples with each label. The head's bias becomes its logit, so that
                the first predictions are the frequencies and the first loss is small. The kernel head has none.
            mean: (4,) channel means of the training images, as a share of white.
            std: (4,) channel spreads of the same.
        """
        head = self.backbone.get_classifier() if self.queries is None else self.queries
        if isinstance(head, nn.Linear | LabelQueries):
            head.bias.copy_(torch.logit(prior, eps=1e-3))
        self.normalise.mean.copy_(mean)
        self.normalise.std.copy_(std)


def autocast(precision: params.Precision) -> AbstractContextManager[object]:
    """Mixed precision for the forward pass: weights stay float32.

    ``auto`` is bf16 where the hardware multiplies it natively: GPUs from 2020 on, CPUs with AMX. Elsewhere bf16
    is emulated and slower than float32. bf16 has float32's range, so no loss scaling is needed.
    """
    kind = hardware.device().type
    if kind == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = bool(torch.cpu.get_capabilities().get("amx_bf16", False))
    enabled = precision == "bf16" or (precision == "auto" and native)
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=enabled)


def with_shared_statistics(network: Network) -> Network:
    """Make batch norm see the batches of all processes that train together as one; weights stay the same tensors."""
    shared: Network = convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    return shared


def hub_weights(backbone: str) -> dict[str, Tensor]:
    """The weights of timm's network for photographs (three channels), from its cache or from the hub.

    Raises:
        InputError: timm has none for this backbone, or the hub cannot be reached.
    """
    if not timm.is_model_pretrained(backbone):
        raise InputError(f"params.yaml: timm has no weights for {backbone!r}: name a file in pretrained, or false")
    try:
        return dict(timm.create_model(backbone, pretrained=True).state_dict())
    except OSError as error:
        raise InputError(
            f"params.yaml: pretrained: true needs the weights of {backbone} from the hub, which cannot be had "
            f"({type(error).__name__}): connect to the network, or name a file in pretrained"
        ) from None


def _has_queries(model: params.BackboneModel) -> TypeGuard[params.NetworkModel]:
    return isinstance(model, params.NetworkModel) and model.head == "label_queries"


def _backbone(model: params.BackboneModel) -> ResNet:
    if not timm.is_model(model.backbone) or timm.model_entrypoint(model.backbone).__module__ != ResNet.__module__:
        raise InputError(f"params.yaml: backbone {model.backbone!r} is no ResNet of timm: try resnet18 or resnet34")
    options: dict[str, Any] = {} if model.widths is None else {"channels": model.widths}
    # A location may be one bright spot in the field, which an average loses: so the maximum beside it.
    head: dict[str, Any] = {"num_classes": 0, "global_pool": ""}
    if isinstance(model, params.NetworkModel) and model.head == "pooled":
        head = {"num_classes": len(LABELS), "global_pool": "catavgmax", "drop_rate": model.dropout}
    net = timm.create_model(
        model.backbone,
        pretrained=False,
        in_chans=len(CHANNELS),
        **head,
        block_args={"attn_layer": gate_layer(model.attention, model.gate_init)},
        **options,
    )
    assert isinstance(net, ResNet)  # for the type checker
    insert_attention(net, model.attention)
    return net
