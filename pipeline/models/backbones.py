"""Backbones: networks of timm for four channels, with attention, and their feature maps. The only module with timm."""

import difflib
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from ssl import SSLError
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import timm
import torch
from huggingface_hub import constants as hub
from timm.layers.norm_act import BatchNormAct2d, convert_sync_batchnorm
from timm.models.resnet import ResNet
from torch import Tensor, nn

from pipeline.core import hardware, params
from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS
from pipeline.core.progress import say
from pipeline.models.attention import AttendAfter, gate_layer, insert_attention, stage_attention
from pipeline.models.shared_batch import SharedBatchNorm, SharedBatchNormAct

HUB_SECONDS = 5
"""How long the hub may take for its first answer."""

STAGES = 3
"""Number of last stages whose feature maps are used."""
ATTENDED = 4
"""Number of last stages with attention, outside ResNets."""
NON_LOCAL = slice(-3, -1)
"""Stages with non-local blocks: the two before the last, as in ResNets."""

SEARCH = 64
"""How far, in pixels, a message looks for an input size that a backbone can process."""


@dataclass(frozen=True)
class Stages:
    """The stages of a backbone whose feature maps are used; a stage is all that has one stride.

    Attributes:
        indices: positions in timm's ``feature_info``, finest first. A transformer of one stride has one.
        channels: of each feature map.
        norm: whether the backbone's last norm is applied, as transformers need.
    """

    indices: tuple[int, ...]
    channels: tuple[int, ...]
    norm: bool

    def maps(self, backbone: nn.Module, x: Tensor) -> list[Tensor]:
        """Normalised images (B, 4, H, W) to the feature maps (B, C_i, H_i, W_i), finest first."""
        found: list[Tensor] = backbone.forward_intermediates(  # type: ignore[operator]
            x, indices=list(self.indices), norm=self.norm, output_fmt="NCHW", intermediates_only=True
        )
        return found

    def stride(self, backbone: nn.Module) -> int:
        """Pixels per position of the finest feature map."""
        stages: Any = backbone.feature_info
        return int(stages[self.indices[0]]["reduction"])


def create(model: params.BackboneModel) -> tuple[nn.Module, Stages]:
    """Build a backbone with random weights, without the layers behind its last feature map.

    Attention is part of every residual block of a ResNet. In other networks, a block of attention follows each stage.

    Raises:
        InputError: timm has no such network, it has no feature maps, or it has no place for attention or widths.
    """
    net, stages = _without_attention(model)
    if model.attention != "none" and not _is_resnet(model.backbone):
        places = _places(model)
        blocks = [stage_attention(model.attention, model.gate_init, channels) for _, channels in places]
        net.add_module("stage_attention", nn.ModuleList(blocks))
        for (place, _), block in zip(places, blocks, strict=True):
            net.get_submodule(place).register_forward_hook(AttendAfter(block))
    return net, stages


def check_sizes(model: params.BackboneModel, sizes: Iterable[int]) -> None:
    """Check that a backbone can process square inputs of these sides, in pixels.

    Raises:
        InputError: it cannot; names the nearest sides that it can process.
    """
    with torch.device("meta"):
        net, stages = _without_attention(model)
        for size in sizes:
            if _fits(net, stages, size):
                continue
            around = (range(size - 1, max(size - SEARCH, 0), -1), range(size + 1, size + SEARCH))
            near = [next((side for side in sides if _fits(net, stages, side)), None) for sides in around]
            possible = " or ".join(f"{side}" for side in near if side) or f"only {model.size}, so augment.crop 1"
            raise InputError(
                f"params.yaml: backbone {model.backbone} cannot process images of {size} px (size {model.size}, "
                f"augment.crop {model.augment.crop}); possible: {possible}"
            )


def first_convolution(backbone: nn.Module) -> str:
    """Name of the layer that reads the image."""
    names: list[str] = [name for name, part in backbone.named_modules() if isinstance(part, nn.Conv2d)]
    return names[0]


def for_photographs(model: params.BackboneModel) -> nn.Module:
    """The whole network as timm has it, with three channels and its own head, and without memory for its weights."""
    with torch.device("meta"):
        found: nn.Module = timm.create_model(model.backbone, pretrained=False, **_options(model))
    return found


def as_timm_has_it(weights: Mapping[str, Tensor], photographs: nn.Module) -> dict[str, Tensor]:
    """Rename and resize the weights of other programs as timm does on loading: position embeddings, for example.

    Args:
        weights: of a network for photographs.
        photographs: that network, see ``for_photographs``.
    """
    adapt = getattr(sys.modules[type(photographs).__module__], "checkpoint_filter_fn", None)
    return dict(weights if adapt is None else adapt(dict(weights), photographs))


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


def share_batch_norm(network: nn.Module) -> nn.Module:
    """Make batch norm use the statistics of all processes' samples; the weights stay the same tensors."""
    if hardware.device().type == "cuda":
        shared: nn.Module = convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return shared
    for module in network.modules():
        if isinstance(module, BatchNormAct2d):
            module.__class__ = SharedBatchNormAct  # type: ignore[assignment]
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.__class__ = SharedBatchNorm
    return network


def _without_attention(model: params.BackboneModel) -> tuple[nn.Module, Stages]:
    """The backbone and its stages; of the attention, only that which timm's residual blocks have a place for."""
    name = model.backbone
    if not timm.is_model(name):
        plain = name.rpartition("/")[2].partition(".")[0].strip().lower()
        similar = difflib.get_close_matches(plain, timm.list_models())
        raise InputError(f"params.yaml: timm has no backbone {name!r}: try {' or '.join(similar or ['resnet34'])}")
    if not _is_resnet(name) and model.widths is not None:
        raise InputError(f"params.yaml: widths are for the ResNets of timm: set widths: null for backbone {name}")
    try:
        options = _options(model)
        if _is_resnet(name) and (gate := gate_layer(model.attention, model.gate_init)) is not None:
            options["block_args"] = {"attn_layer": gate}  # without this, a backbone's own attention stays
        net: Any = timm.create_model(
            name, pretrained=False, in_chans=len(CHANNELS), num_classes=0, global_pool="", **options
        )
    except InputError:  # of our attention
        raise
    except Exception as error:  # timm raises many types for what a network cannot be built with
        raise InputError(
            f"params.yaml: timm cannot build backbone {name} with widths {model.widths} and attention "
            f"{model.attention} ({type(error).__name__}: {str(error).strip() or 'no reason given'}): try widths: null, "
            "attention: none, or another name"
        ) from None
    if isinstance(net, ResNet) and _is_resnet(name):
        insert_attention(net, model.attention)
    if not hasattr(net, "forward_intermediates") or not hasattr(net, "prune_intermediate_layers"):
        raise InputError(f"params.yaml: backbone {name} of timm gives no feature maps: try resnet34 or convnext_tiny")
    indices = _last_of_each_stride(net)[-STAGES:]
    norm = not isinstance(getattr(net, "norm", nn.Identity()), nn.Identity)
    net.prune_intermediate_layers(indices, prune_norm=not norm, prune_head=True)
    channels = tuple(net.feature_info[index]["num_chs"] for index in indices)
    return net, Stages(tuple(indices), channels, norm)


def _options(model: params.BackboneModel) -> dict[str, Any]:
    """Keyword arguments of timm that determine the shapes of the weights."""
    options: dict[str, Any] = {} if model.widths is None else {"channels": model.widths}
    config = timm.get_pretrained_cfg(model.backbone)
    if config is not None and config.fixed_input_size:
        with torch.device("meta"):
            accepted = inspect.signature(type(timm.create_model(model.backbone, pretrained=False))).parameters
        # Position embeddings or windows depend on the input size, but random crops are smaller than whole images.
        other_sizes = {"dynamic_img_size": True, "strict_img_size": False}
        options |= {"img_size": model.size} | {key: value for key, value in other_sizes.items() if key in accepted}
    return options


def _is_resnet(name: str) -> bool:
    """Whether timm builds it of the residual blocks that have a place for attention (ResNet, ResNeXt, SE-ResNet)."""
    return bool(timm.model_entrypoint(name).__module__ == ResNet.__module__)


def _last_of_each_stride(net: nn.Module) -> list[int]:
    """Positions in ``feature_info`` of the last feature map of each stride, finest first."""
    strides: Any = net.feature_info
    return sorted({found["reduction"]: index for index, found in enumerate(strides)}.values())


def _fits(net: nn.Module, stages: Stages, size: int) -> bool:
    try:
        maps = stages.maps(net, torch.zeros(2, len(CHANNELS), size, size))
    except (RuntimeError, AssertionError, ValueError):  # what timm and torch raise for sizes that do not fit
        return False
    return all(min(found.shape[-2:]) > 0 for found in maps)


def _places(model: params.BackboneModel) -> list[tuple[str, int]]:
    """Name and output channels of the modules that attention follows.

    The module of a stage is the outermost one that returns the stage's feature map; tokens of a transformer are none.
    """
    if model.attention == "self":
        raise InputError(
            "params.yaml: attention self replaces the 3x3 convolutions of timm's ResNets; for backbone "
            f"{model.backbone}, use channel, spatial, cbam, nonlocal or none"
        )
    with torch.device("meta"):
        net, stages = _without_attention(model)
        every = _last_of_each_stride(net)[-ATTENDED:]
        wanted = every[NON_LOCAL] if model.attention == "nonlocal" else every
        returned: list[tuple[str, Any]] = []
        for name, module in net.named_modules():
            if name:
                module.register_forward_hook(lambda _m, _i, output, name=name: returned.append((name, output)))
        used = Stages(tuple(wanted), (), stages.norm)
        maps = used.maps(net, torch.zeros(2, len(CHANNELS), model.size, model.size)) if wanted else []
    places = [[name for name, output in returned if output is found] for found in maps]
    if not (places and all(places)):
        raise InputError(
            f"params.yaml: attention {model.attention} has no place in backbone {model.backbone}, which has no "
            "convolutional stages with one output each: use attention: none"
        )
    return [(names[-1], found.shape[1]) for names, found in zip(places, maps, strict=True)]


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
