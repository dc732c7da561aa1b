"""All networks of a folder at work on the same images: models, and of each model one network a fold."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline import params
from pipeline.atlas.images import Image, shrink_quickly
from pipeline.errors import InputError
from pipeline.model import checkpoint
from pipeline.model.build import AnyModel
from pipeline.model.maps import DETAIL, REASONS, label_maps
from pipeline.training import runtime
from pipeline.training.predict import probabilities

FOLD = "fold-"


@dataclass(frozen=True)
class Member:
    """One network with the recipe it was trained by."""

    network: AnyModel
    recipe: params.Model

    def see(self, images: Image) -> Tensor:
        """(B, S, S, 4) uint8 as the network takes it, (B, 4, s, s), shrunk as a packed image is."""
        small = np.stack([shrink_quickly(image, self.recipe.size) for image in images])
        return torch.from_numpy(small).permute(0, 3, 1, 2)


Ensemble = dict[str, list[Member]]
"""The networks of each model, one a fold."""

Found = dict[str, dict[int, Path]]
"""Weight files by model and fold."""


def find_models(folder: Path) -> Found:
    """The weight files below a folder by model, the folder they stand in, and fold.

    Raises:
        InputError: there is none, the name of one does not tell its fold, or two are of one model and fold.
    """
    found: Found = {}
    for path in sorted(folder.absolute().rglob(f"{FOLD}*.safetensors")):
        fold = path.stem.removeprefix(FOLD)
        if not (fold.isascii() and fold.isdigit()):
            raise InputError(f"{path}: {fold!r} is no fold: name it {FOLD}0.safetensors, say")
        other = found.setdefault(path.parent.name, {}).setdefault(int(fold), path)
        if other != path:
            raise InputError(f"{other} and {path} are both {path.parent.name}, fold {int(fold)}: name a folder of one")
    if not found:
        raise InputError(f"{folder}: no models here ({FOLD}K.safetensors): train them first (dvc repro)")
    return found


def load_models(found: Found, size: int) -> Ensemble:
    """Load all networks, onto the device.

    Args:
        found: the weight files.
        size: side in pixels of the images they will be given.

    Raises:
        InputError: one is damaged, was trained on other labels or channels, or needs larger images.
    """
    ensemble: Ensemble = {}
    for model, by_fold in found.items():
        for path in by_fold.values():
            network, recipe = checkpoint.load(path)
            if recipe.size > size:
                raise InputError(
                    f"{path} sees {recipe.size} pixels: raise pack.size ({size}) in params.yaml to as many"
                )
            ensemble.setdefault(model, []).append(Member(network.to(runtime.device()), recipe))
    return ensemble


def predict(ensemble: Ensemble, images: Image, views: Sequence[str]) -> npt.NDArray[np.float32]:
    """Each model's probabilities, (M, B, 28), averaged over its folds, of (B, S, S, 4) uint8."""

    def alone(member: Member) -> npt.NDArray[np.float32]:
        seen = member.see(images)
        return probabilities(member.network, [(seen, seen)], views=views, precision=member.recipe.precision)

    return np.stack([np.mean([alone(member) for member in members], axis=0) for members in ensemble.values()])


def attention(ensemble: Ensemble, images: Image, labels: Sequence[int]) -> Image:
    """Where all models together look for one label of each of (B, S, S, 4) uint8.

    Returns:
        (B, DETAIL, DETAIL) uint8: the mean of their Grad-CAMs or occlusions, scaled to a maximum of 255; 0 where
        nothing speaks for the label.
    """
    chosen = torch.tensor(labels, device=runtime.device())
    total = torch.zeros(len(images), DETAIL, DETAIL)
    for member in (member for own in ensemble.values() for member in own):
        seen = member.see(images).to(runtime.device())
        maps = label_maps(member.network, seen, chosen, DETAIL)
        total += next(maps[kind] for kind in REASONS if kind in maps).cpu()
    highest = total.amax(dim=(1, 2), keepdim=True)
    scaled: Image = (total / highest.where(highest > 0, 1.0) * 255).round().to(torch.uint8).numpy()
    return scaled
