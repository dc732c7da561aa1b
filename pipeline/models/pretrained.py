"""Weights to start from: this project's own, or three-channel ones in timm's and torchvision's format."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.core import params
from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS
from pipeline.models import checkpoint
from pipeline.models.network import Network, hub_weights

Weights = dict[str, Tensor]

RGB = ("red", "green", "blue")
"""The order of the channels in the stem of a network for photographs."""
BACKBONE = "backbone."
HEAD = (f"{BACKBONE}fc.", "queries.", "kernel.")
STATISTICS = "normalise."
"""Never taken: they describe the images that the network is about to see."""
COUNTER = ".num_batches_tracked"
"""Never missed: older files lack them, and a norm with a momentum does not read them."""
NAMED = 5
"""Weights that a message names before it counts the rest."""


def start_from_weights(network: Network, model: params.BackboneModel) -> None:
    """Overwrite fresh weights with those that ``model.pretrained`` names; ``false`` leaves all as it is.

    The backbone must be there to the last weight, and nothing that it does not have. Attention and head are
    taken from a file of this project where name and shape fit, since the labels are the same, and otherwise
    stay as they are: where nothing is trained, only attention that starts as the identity may. A three-channel stem
    becomes four-channel.

    Raises:
        InputError: the weights cannot be had, or are not of this backbone; names what is wrong.
    """
    if model.pretrained is False:
        return
    origin = f"timm's {model.backbone}" if model.pretrained is True else model.pretrained
    found, description = (hub_weights(model.backbone), {}) if model.pretrained is True else _read(Path(origin))
    if description:
        _check_description(description, model, origin)
    else:
        found = {BACKBONE + name: weight for name, weight in found.items()}
    stem = f"{BACKBONE}{network.stem}.weight"
    if stem in found and found[stem].ndim == 4 and found[stem].shape[1] == len(RGB):
        found[stem] = four_channels(found[stem], model.yellow)
    own = network.state_dict()
    if not description:
        _check_weights(found, own, _plain(model), origin)
    fits = {name for name, weight in found.items() if name in own and weight.shape == own[name].shape}
    if isinstance(model, params.FrozenModel):
        _check_nothing_is_random(own, fits, model, origin)
    network.load_state_dict({name: found[name] for name in fits if not name.startswith(STATISTICS)}, strict=False)


def four_channels(rgb: Tensor, yellow: str) -> Tensor:
    """Filters for green, blue, red and yellow from filters (N, 3, K, K) for red, green and blue.

    A stain gets the filters of its own colour. Yellow (the endoplasmic reticulum) gets the mean of red's and
    green's, of which yellow light is made, or red's, whose stain it resembles most, or zero.

    Each filter is then scaled so that the sum of its squares is what it was: for channels of variance 1 that
    are not correlated this sum is the variance of the filter's output, and the layers behind expect that one.
    """
    red, green, blue = rgb.unbind(1)
    colours = {"red": red, "green": green, "blue": blue}
    colours["yellow"] = {"mean": (red + green) / 2, "red": red, "zero": torch.zeros_like(red)}[yellow]
    filters = torch.stack([colours[channel] for channel in CHANNELS], dim=1)  # N, 4, K, K
    wanted, energy = (weight.square().sum((1, 2, 3), keepdim=True) for weight in (rgb, filters))
    return filters * torch.where(energy > 0, wanted / energy, 1.0).sqrt()


def _read(path: Path) -> tuple[Weights, dict[str, Any]]:
    """Weights, and the description if the file is this project's, else nothing."""
    if path.suffix == ".safetensors":
        return checkpoint.read(path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path} is missing: pretrained in params.yaml names it") from None
    except Exception as error:  # torch raises almost anything at a file that it did not write
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path} is no file of weights ({reason}): save a state_dict to it") from None
    if not isinstance(loaded, dict) or not all(isinstance(weight, Tensor) for weight in loaded.values()):
        raise InputError(f"{path} holds more than weights: save the network's state_dict alone")
    return loaded, {}


def _plain(model: params.BackboneModel) -> list[str]:
    """Names of the backbone's weights when it has neither attention nor head."""
    with torch.device("meta"):
        names = Network(model.model_copy(update={"attention": "none"})).state_dict()
    return [name for name in names if not name.startswith((STATISTICS, *HEAD))]


def _check_description(description: dict[str, Any], model: params.BackboneModel, origin: str) -> None:
    checkpoint.check_labels(description, origin)
    trained, wanted = description["model"], model.model_dump(mode="json")
    # The same weights are other gates where ``init`` differs: those that start at identity are doubled.
    gates = ("gate_init",) if trained["attention"] == model.attention != "none" else ()
    keys = ["backbone", "widths", *gates]
    if isinstance(model, params.FrozenModel):  # what is not trained cannot get used to a change
        keys += ["normalise"] if trained["attention"] == "none" else ["normalise", "attention"]
    for key in keys:
        if trained.get(key) != wanted[key]:
            raise InputError(
                f"{origin} was trained with {key}: {trained.get(key)}, the model in params has {wanted[key]}"
            )


def _check_weights(found: Weights, own: Weights, plain: Collection[str], origin: str) -> None:
    missing = [name for name in plain if name not in found and not name.endswith(COUNTER)]
    surplus = [name for name in found if name not in plain and not name.startswith(HEAD)]
    shapes = {name: (tuple(found[name].shape), tuple(own[name].shape)) for name in found if name in own}
    other = [f"{name} {has} for {wanted}" for name, (has, wanted) in shapes.items() if has != wanted and name in plain]
    problems = {"it lacks": missing, "it has also": surplus, "of another shape": other}
    phrases = [f"{problem}: {_listed(names)}" for problem, names in problems.items() if names]
    if phrases:
        raise InputError(f"{origin} does not fit backbone and channels in params.yaml; {'; '.join(phrases)}")


def _check_nothing_is_random(own: Weights, fits: Collection[str], model: params.BackboneModel, origin: str) -> None:
    fresh = [name for name in own if name.startswith(BACKBONE) and name not in fits and not name.endswith(COUNTER)]
    identity = model.attention == "nonlocal" or (model.attention != "self" and model.gate_init == "identity")
    if fresh and not identity:
        raise InputError(
            f"{origin} lacks weights of attention {model.attention} ({_listed(fresh)}), which the head kernel "
            "does not train: take attention none, or weights that have it"
        )


def _listed(names: Collection[str]) -> str:
    shown = [name.removeprefix(BACKBONE) for name in names][:NAMED]
    return ", ".join(shown) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
