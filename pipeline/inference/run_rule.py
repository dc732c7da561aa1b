"""The decision rule that new images are predicted with: that of the run beside the models, if there is one."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS
from pipeline.core.progress import say
from pipeline.evaluation.decision_rule import DecisionRule
from pipeline.inference.trained_models import LoadedModels, WeightFiles, stored_rule, uncalibrated_rule

THRESHOLD = 0.3
"""Used without a run's rule and without --threshold: a common choice in this competition for models trained with focal
loss."""


def choose_rule(folder: Path, found: WeightFiles, threshold: float | None) -> tuple[DecisionRule, WeightFiles]:
    """Choose the decision rule, and the weight files that it needs, in its order.

    With a threshold, or without a run beside the models' folder, the rule is the uncalibrated mean of all models and
    one threshold. Otherwise it is the rule that the run applied to its test set.

    Raises:
        InputError: the run's rule is damaged or needs models that are missing, or the threshold is not in 0..1.
    """
    if threshold is not None:
        if not 0 <= threshold <= 1:
            raise InputError(f"--threshold {threshold}: give a probability in 0..1")
        return uncalibrated_rule(len(found), threshold), found
    stored = stored_rule(folder.absolute().parent)
    if stored is None:
        say(f"no run beside {folder}: using the models' uncalibrated mean and the threshold {THRESHOLD} for all labels")
        return uncalibrated_rule(len(found), THRESHOLD), found
    there = {(model, fold) for model, by_fold in found.items() for fold in by_fold}
    needed = [(model, fold) for model, folds in stored.members.items() for fold in folds]
    if missing := sorted(set(needed) - there):
        raise InputError(
            f"{folder} lacks {_list_jobs(missing)}, which the decision rule of the run needs: run dvc repro, or give "
            "--threshold"
        )
    if others := sorted(there - set(needed)):
        say(f"ignored, because the decision rule of the run does not use them: {_list_jobs(others)}")
    return stored.rule, {model: {fold: found[model][fold] for fold in own} for model, own in stored.members.items()}


def unprepared_models(models: LoadedModels) -> list[str]:
    """The models that were trained on samples with all stains only."""
    return [name for name, folds in models.items() if not all(model.drops_stains for model in folds)]


def warn_of_missing_stains(models: LoadedModels, stains: Sequence[str]) -> None:
    """Warn if samples lack stains, and models were trained on complete samples only."""
    missing = [channel for channel in CHANNELS if channel not in stains]
    unprepared = unprepared_models(models)
    if missing and unprepared:
        say(
            f"warning: {', '.join(unprepared)} never saw images without {' or '.join(missing)} in training, and may "
            "predict them badly: train with augment.drop_stains above 0"
        )


def _list_jobs(jobs: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{model} fold {fold}" for model, fold in jobs)
