"""All networks of a folder at work on the same images: models, and of each model one network a fold."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.core import hardware, params, paths
from pipeline.core.errors import InputError
from pipeline.core.labels import LABELS
from pipeline.evaluation import prediction_files
from pipeline.evaluation.blending import Blender
from pipeline.evaluation.calibration import Calibration
from pipeline.evaluation.decision_rule import DecisionRule
from pipeline.evaluation.metrics import Floats
from pipeline.evaluation.result_files import DECISIONS
from pipeline.inference.attention_maps import LABEL_MAPS, MAP_SIZE, label_maps
from pipeline.inference.probabilities import probabilities
from pipeline.models import checkpoint
from pipeline.models.checkpoint import AnyModel
from pipeline.sources.images import Image, shrink_quickly

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

WeightFiles = dict[str, dict[int, Path]]
"""Weight files by model and fold."""


def find_models(folder: Path) -> WeightFiles:
    """The weight files below a folder by model, the folder they stand in, and fold.

    Raises:
        InputError: there is none, the name of one does not tell its fold, or two are of one model and fold.
    """
    found: WeightFiles = {}
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


def load_models(found: WeightFiles, size: int) -> Ensemble:
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
            ensemble.setdefault(model, []).append(Member(network.to(hardware.device()), recipe))
    return ensemble


def predict(ensemble: Ensemble, images: Image, views: Sequence[str]) -> npt.NDArray[np.float32]:
    """Each model's probabilities, (M, B, 28), averaged over its folds, of (B, S, S, 4) uint8."""

    def alone(member: Member) -> npt.NDArray[np.float32]:
        seen = member.see(images)
        return probabilities(member.network, [(seen, seen)], views=views, precision=member.recipe.precision)

    return np.stack([np.mean([alone(member) for member in members], axis=0) for members in ensemble.values()])


def mean_attention_maps(ensemble: Ensemble, images: Image, labels: Sequence[int]) -> Image:
    """Where all models together look for one label of each of (B, S, S, 4) uint8.

    Returns:
        (B, DETAIL, DETAIL) uint8: the mean of their Grad-CAMs or occlusions, scaled to a maximum of 255; 0 where
        nothing speaks for the label.
    """
    chosen = torch.tensor(labels, device=hardware.device())
    total = torch.zeros(len(images), MAP_SIZE, MAP_SIZE)
    for member in (member for own in ensemble.values() for member in own):
        seen = member.see(images).to(hardware.device())
        maps = label_maps(member.network, seen, chosen, MAP_SIZE)
        total += next(maps[kind] for kind in LABEL_MAPS if kind in maps).cpu()
    highest = total.amax(dim=(1, 2), keepdim=True)
    scaled: Image = (total / highest.where(highest > 0, 1.0) * 255).round().to(torch.uint8).numpy()
    return scaled


@dataclass(frozen=True)
class StoredRule:
    """A rule read back.

    Attributes:
        rule: as it was used on the run's test set.
        members: the folds of each model whose mean probabilities it takes, in its order.
    """

    rule: DecisionRule
    members: Mapping[str, Sequence[int]]


def stored_rule(run: Path) -> StoredRule | None:
    """The rule that a run used on its test set, or None where it has left none.

    Args:
        run: the run's folder, in which ``blend/`` and, for ranks, ``predictions/`` stand.

    Raises:
        InputError: a file is damaged, or the predictions that ranks are taken among are missing.
    """
    path = run / DECISIONS
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        weights, folds = content["weights"], sorted(int(fold) for fold in content["by_fold"])
        calibration = Calibration(float(content["slope"]), np.array(content["offsets"], np.float64))
        thresholds, kind = np.array(content["thresholds"], np.float64), content["blend"]
        if thresholds.shape != (len(LABELS),) or calibration.offsets.shape != (len(LABELS),):
            raise ValueError(f"not {len(LABELS)} thresholds and offsets")
        shares = np.array(list(weights.values()), np.float64)
    except FileNotFoundError:
        return None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is damaged ({error}): run dvc repro in {run.resolve()}, or give --threshold"
        ) from None
    members = dict.fromkeys(weights, folds)
    reference = _held_out(run, members) if kind == "ranks" else np.empty((len(members), 0, len(LABELS)))
    mixture = Blender(kind, shares, reference)
    return StoredRule(DecisionRule(mixture, calibration, thresholds), members)


def uncalibrated_rule(models: int, threshold: float) -> DecisionRule:
    """The mean of the models' probabilities as it comes, and one threshold for all labels."""
    mixture = Blender("probabilities", np.full(models, 1 / models), np.empty((models, 0, len(LABELS))))
    return DecisionRule(mixture, Calibration(1.0, np.zeros(len(LABELS))), np.full(len(LABELS), threshold))


def _held_out(run: Path, members: Mapping[str, Sequence[int]]) -> Floats:
    """The held-out probabilities among which a run's ranks are taken, (M, N, 28), in the same order for each model."""
    stacked = []
    for model, folds in members.items():
        found = [prediction_files.load_predictions(run / paths.predictions(model, fold)) for fold in folds]
        order = np.argsort(np.concatenate([part.held_out_ids for part in found]))
        stacked.append(np.concatenate([part.held_out for part in found])[order])
    return np.stack(stacked)
