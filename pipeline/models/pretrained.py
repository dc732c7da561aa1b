"""Pretrained weights: files of this project, or three-channel weights in the format of timm and torchvision."""

import pickle
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.core import params
from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS
from pipeline.models import backbones, checkpoint
from pipeline.models.network import Network
from pipeline.models.provenance import Provenance

Weights = dict[str, Tensor]

RGB = ("red", "green", "blue")
"""Order of the input channels of a network for photographs."""
BACKBONE = "backbone."
HEAD = ("pooled.", "pyramid.", "queries.", "kernel.")
STATISTICS = "normalise."
"""Prefix of the input statistics. They are never loaded, because they depend on the new training images."""
COUNTER = ".num_batches_tracked"
"""Suffix of weights that may be missing: older files lack them, and batch norm with a momentum does not use them."""
CONTAINERS = ("state_dict", "model_state_dict", "model", "state_dict_ema", "model_ema")
"""Keys under which training programs keep a network's weights in a file with other things; the first one counts."""
WRAPPERS = ("_orig_mod.", "module.", "_orig_mod.", "model.")
"""Prefixes of torch.compile, and of DataParallel, in either order; of modules of Lightning."""
REMEDY = "save only the network's state_dict (torch.save(network.state_dict(), FILE))"
NAMED = 5
"""Number of weights that a message names; the others are only counted."""


def start_from_weights(network: Network, model: params.BackboneModel) -> Provenance:
    """Load the weights given by ``model.pretrained`` into a new network; ``false`` keeps its random weights.

    The file must contain all weights of the backbone, and no others except those of the rest of timm's network. Weights
    of attention and head are loaded from files of this project if name and shape match, because the labels are the
    same; otherwise they keep their initial values. In a frozen network, this is allowed only for attention that starts
    as the identity. A stem with three input channels is converted to four.

    Returns:
        The samples that the weights have seen, as far as their file records them. Weights of other programs count as
        having seen none.

    Raises:
        InputError: the weights cannot be read, or do not fit the backbone.
    """
    if model.pretrained is False:
        return Provenance()
    origin = f"timm's {model.backbone}" if model.pretrained is True else model.pretrained
    found, description = (
        (backbones.hub_weights(model.backbone), {}) if model.pretrained is True else _read(Path(origin).expanduser())
    )
    if broken := [name for name, weight in found.items() if not weight.isfinite().all()]:
        raise InputError(f"{origin}: its weights are not finite ({_listed(broken)}): use those of another training")
    provenance = Provenance()
    if description:
        _check_description(description, model, origin)
        provenance = Provenance.from_json(description.get("seen"), origin)
    else:
        photographs = backbones.for_photographs(model)
        found = backbones.as_timm_has_it(found, photographs)
        found = {BACKBONE + name: weight for name, weight in found.items()}
    stem = f"{BACKBONE}{network.stem}.weight"
    if stem in found and found[stem].ndim == 4 and found[stem].shape[1] == len(RGB):
        found[stem] = four_channels(found[stem], model.yellow)
    own = network.state_dict()
    if not description:
        unused = {BACKBONE + name for name in photographs.state_dict()}
        _check_weights(found, own, _backbone_names(model), unused, origin)
    fits = {name for name, weight in found.items() if name in own and weight.shape == own[name].shape}
    if isinstance(model, params.FrozenModel):
        _check_frozen_is_complete(own, fits, model, origin)
    network.load_state_dict({name: found[name] for name in fits if not name.startswith(STATISTICS)}, strict=False)
    return provenance


def head_weights(pretrained: bool | str) -> Weights:
    """What a weight file of this project has besides a backbone: attention of labels, feature pyramid, last layer.

    Args:
        pretrained: as in params.yaml. Other weights than such a file have no head for these labels: then it is empty.

    Raises:
        InputError: the file cannot be read.
    """
    weights, description = _read(Path(pretrained).expanduser()) if isinstance(pretrained, str) else ({}, {})
    return {name: weight for name, weight in weights.items() if description and name.startswith(HEAD)}


def four_channels(rgb: Tensor, yellow: str) -> Tensor:
    """Filters for green, blue, red and yellow from filters (N, 3, K, K) for red, green and blue.

    A stain gets the filters of its own colour. Yellow (the endoplasmic reticulum) gets the mean of the red and green
    filters (``mean``), because yellow light is a mix of both; the red filters (``red``), because the red stain is the
    most similar one; or zeros (``zero``).

    Each filter is then scaled to its original sum of squares. For uncorrelated input channels of variance 1, this sum
    is the variance of the filter's output, on which the following layers depend.
    """
    red, green, blue = rgb.unbind(1)
    colours = {"red": red, "green": green, "blue": blue}
    colours["yellow"] = {"mean": (red + green) / 2, "red": red, "zero": torch.zeros_like(red)}[yellow]
    filters = torch.stack([colours[channel] for channel in CHANNELS], dim=1)  # N, 4, K, K
    wanted, energy = (weight.square().sum((1, 2, 3), keepdim=True) for weight in (rgb, filters))
    return filters * torch.where(energy > 0, wanted / energy, 1.0).sqrt()


def _read(path: Path) -> tuple[Weights, dict[str, Any]]:
    """Weights and description; the description is empty for files of other programs."""
    if not path.exists():
        raise InputError(f"{path} is missing: pretrained in params.yaml names it")
    if path.suffix.lower() == ".safetensors":
        weights, description = checkpoint.read(path, f"copy or download it again (git lfs pull), or {REMEDY}")
        return (weights, description) if description else (_plain_names(weights), {})
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types of exceptions for invalid files
        if isinstance(error, pickle.UnpicklingError) and zipfile.is_zipfile(path):
            raise InputError(
                f"{path} contains other Python objects than tensors, which could run any code when loaded: {REMEDY}"
            ) from None
        raise InputError(f"{path} is not a weight file, or is incomplete: copy it again, or {REMEDY}") from None
    for key in CONTAINERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
            break
    if not isinstance(loaded, dict) or not loaded or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise InputError(
            f"{path} contains no state_dict, neither by itself nor as one of {', '.join(CONTAINERS)}: {REMEDY}"
        )
    return _plain_names(loaded), {}


def _plain_names(weights: Weights) -> Weights:
    """Remove the prefixes that wrappers for several GPUs and for compilation put before every name."""
    for prefix in WRAPPERS:
        if weights and all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): weight for name, weight in weights.items()}
    return weights


def _backbone_names(model: params.BackboneModel) -> list[str]:
    """Names of the backbone's weights, without those of attention and head."""
    with torch.device("meta"):
        names = Network(model.model_copy(update={"attention": "none"})).state_dict()
    return [name for name in names if not name.startswith((STATISTICS, *HEAD))]


def _check_description(description: dict[str, Any], model: params.BackboneModel, origin: str) -> None:
    checkpoint.check_labels(description, origin)
    trained, wanted = description["model"], model.model_dump(mode="json")
    # The same weights give other gates if ``gate_init`` differs, because identity multiplies gates by 2.
    gates = ("gate_init",) if trained["attention"] == model.attention != "none" else ()
    keys = ["backbone", "widths", *gates]
    if isinstance(model, params.FrozenModel):  # a frozen network cannot adapt to a change
        keys += ["normalise"] if trained["attention"] == "none" else ["normalise", "attention"]
    for key in keys:
        if trained.get(key) != wanted[key]:
            raise InputError(f"{origin} was trained with {key}: {trained.get(key)}, but params.yaml has {wanted[key]}")


def _check_weights(
    found: Weights, own: Weights, expected: Collection[str], unused: Collection[str], origin: str
) -> None:
    missing = [name for name in expected if name not in found and not name.endswith(COUNTER)]
    unexpected = [name for name in found if name not in expected and name not in unused]
    shapes = {name: (tuple(found[name].shape), tuple(own[name].shape)) for name in found if name in own}
    wrong_shape = [
        f"{name} {has} instead of {wanted}"
        for name, (has, wanted) in shapes.items()
        if has != wanted and name in expected
    ]
    problems = {"missing": missing, "unexpected": unexpected, "wrong shape": wrong_shape}
    phrases = [f"{problem}: {_listed(names)}" for problem, names in problems.items() if names]
    if phrases:
        raise InputError(f"{origin} does not fit backbone and widths in params.yaml; {'; '.join(phrases)}")


def _check_frozen_is_complete(own: Weights, fits: Collection[str], model: params.BackboneModel, origin: str) -> None:
    missing = [name for name in own if name.startswith(BACKBONE) and name not in fits and not name.endswith(COUNTER)]
    identity = model.attention == "nonlocal" or (model.attention != "self" and model.gate_init == "identity")
    if missing and not identity:
        raise InputError(
            f"{origin} lacks weights of attention {model.attention} ({_listed(missing)}), which a frozen model "
            "does not train: use attention none, or weights that include it"
        )


def _listed(names: Collection[str]) -> str:
    shown = [name.removeprefix(BACKBONE) for name in names][:NAMED]
    return ", ".join(shown) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
