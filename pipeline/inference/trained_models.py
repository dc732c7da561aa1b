"""Trained models from a folder: finding and loading their files, predictions, attention maps, and their decision rule.

Every model has been trained once per fold, so it is a list of fold models; predictions are averaged over them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from pipeline.core import hardware, params, paths, stray_files
from pipeline.core.errors import InputError
from pipeline.core.labels import LABELS
from pipeline.evaluation import prediction_files
from pipeline.evaluation.blending import Blender
from pipeline.evaluation.calibration import Calibration
from pipeline.evaluation.decision_rule import DecisionRule
from pipeline.evaluation.metrics import Floats
from pipeline.evaluation.result_files import DECISIONS
from pipeline.inference.attention_maps import LABEL_MAPS, MAP_SIZE, label_maps
from pipeline.inference.finite import check_finite
from pipeline.inference.fold_model import FoldModel
from pipeline.inference.probabilities import probabilities
from pipeline.models import checkpoint
from pipeline.sources.images import Image

FOLD = "fold-"
"""Prefix of the name of a weight file."""

WeightFiles = dict[str, dict[int, Path]]
"""Weight files by model and fold."""


LoadedModels = dict[str, list[FoldModel]]
"""The fold models of each model."""


def find_models(folder: Path) -> WeightFiles:
    """Find the weight files below a folder. The parent folder of a file is the name of its model.

    Raises:
        InputError: there is none, the name of one contains no fold, or two belong to the same model and fold.
    """
    found: WeightFiles = {}
    files = stray_files.walk(folder.absolute()) if folder.is_dir() else ()
    for path in sorted(path for path in files if path.match(f"{FOLD}*.safetensors") and not stray_files.is_stray(path)):
        fold = path.stem.removeprefix(FOLD)
        if not (fold.isascii() and fold.isdigit()):
            raise InputError(f"{path}: {fold!r} is not a fold: rename it, for example to {FOLD}0.safetensors")
        other = found.setdefault(path.parent.name, {}).setdefault(int(fold), path)
        if other != path:
            raise InputError(
                f"{other} and {path} are both {path.parent.name}, fold {int(fold)}: choose a folder with one of them"
            )
    if not found:
        raise InputError(
            f"{folder}: no models found ({FOLD}K.safetensors): train them (dvc repro), or get them (dvc pull)"
        )
    return found


def load_models(found: WeightFiles, size: int, precision: params.Precision | None = None) -> LoadedModels:
    """Load all models, onto the device.

    Args:
        found: the weight files.
        size: side in pixels of the images they will be applied to.
        precision: of the forward pass, in place of that in the model's section.

    Raises:
        InputError: a file is damaged, was trained on other labels or channels, or needs larger images.
    """
    loaded: LoadedModels = {}
    for model, by_fold in found.items():
        for path in by_fold.values():
            network, recipe = checkpoint.load(path)
            if recipe.size > size:
                raise InputError(
                    f"{path} needs images of {recipe.size} pixels: raise pack.size ({size}) in params.yaml to that"
                )
            if precision is not None and isinstance(recipe, params.BackboneModel):
                recipe = recipe.model_copy(update={"precision": precision})
            loaded.setdefault(model, []).append(FoldModel(network.to(hardware.device()), recipe))
    return loaded


def predict(models: LoadedModels, images: Image, views: Sequence[str]) -> npt.NDArray[np.float32]:
    """Probabilities of each model, averaged over its folds: (M, B, 28), for images (B, S, S, 4) uint8.

    Raises:
        InputError: a model's predictions are not finite.
    """

    def of_fold(model: FoldModel) -> npt.NDArray[np.float32]:
        batch = model.to_input(images)
        return probabilities(model.network, [(batch, batch)], views=views, precision=model.recipe.precision)

    found = [np.mean([of_fold(model) for model in by_fold], axis=0) for by_fold in models.values()]
    for name, predicted in zip(models, found, strict=True):
        check_finite(predicted, f"model {name}")
    return np.stack(found)


def mean_attention_maps(models: LoadedModels, images: Image, labels: Sequence[int]) -> Image:
    """Average over all models the attention maps for one label of each image, (B, S, S, 4) uint8.

    Returns:
        (B, MAP_SIZE, MAP_SIZE) uint8: the mean of their best label-specific maps, scaled to a maximum of 255; all 0
        if nothing contributes to the label.
    """
    chosen = torch.tensor(labels, device=hardware.device())
    total = torch.zeros(len(images), MAP_SIZE, MAP_SIZE)
    for model in (model for by_fold in models.values() for model in by_fold):
        batch = model.to_input(images).to(hardware.device())
        maps = label_maps(model.network, batch, chosen, MAP_SIZE)
        total += next(maps[kind] for kind in LABEL_MAPS if kind in maps).cpu()
    highest = total.amax(dim=(1, 2), keepdim=True)
    scaled: Image = (total / highest.where(highest > 0, 1.0) * 255).round().to(torch.uint8).numpy()
    return scaled


@dataclass(frozen=True)
class StoredRule:
    """The decision rule of a finished run.

    Attributes:
        rule: as applied to the run's test set.
        members: the models that it takes, in its order, with the folds to average each over.
    """

    rule: DecisionRule
    members: Mapping[str, Sequence[int]]


def stored_rule(run: Path) -> StoredRule | None:
    """Read the rule that a run applied to its test set, or return None if the folder has none.

    Args:
        run: the run's folder, which contains ``blend/`` and, for a blend of ranks, ``predictions/``.

    Raises:
        InputError: a file is damaged, or the predictions among which ranks are computed are missing.
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
    reference = _out_of_fold(run, members) if kind == "ranks" else np.empty((len(members), 0, len(LABELS)))
    blender = Blender(kind, shares, reference)
    return StoredRule(DecisionRule(blender, calibration, thresholds), members)


def uncalibrated_rule(models: int, threshold: float) -> DecisionRule:
    """The uncalibrated mean of the models' probabilities, with one threshold for all labels."""
    blender = Blender("probabilities", np.full(models, 1 / models), np.empty((models, 0, len(LABELS))))
    return DecisionRule(blender, Calibration(1.0, np.zeros(len(LABELS))), np.full(len(LABELS), threshold))


def _out_of_fold(run: Path, members: Mapping[str, Sequence[int]]) -> Floats:
    """The run's out-of-fold probabilities, (M, N, 28), among which ranks are computed; samples are sorted by id."""
    stacked = []
    for model, folds in members.items():
        found = [prediction_files.load_predictions(run / paths.predictions(model, fold)) for fold in folds]
        order = np.argsort(np.concatenate([part.held_out_ids for part in found]))
        stacked.append(np.concatenate([part.held_out for part in found])[order])
    return np.stack(stacked)
