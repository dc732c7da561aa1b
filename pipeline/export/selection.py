"""What of a finished run is exported: networks, decision rule and views, with the score of exactly these."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.core import params, paths
from pipeline.core.errors import InputError
from pipeline.core.labels import target_matrix
from pipeline.data.fold_table import read_folds
from pipeline.evaluation import prediction_files
from pipeline.evaluation.decision_rule import DecisionRule, cross_fit, fit_rule
from pipeline.evaluation.intervals import f1_resamples, interval
from pipeline.evaluation.metrics import Bools, Floats, f1_by_label, macro_f1
from pipeline.inference.trained_models import LoadedModels, StoredRule, find_models, load_models, stored_rule
from pipeline.models.network import Network


@dataclass(frozen=True)
class ValidationScore:
    """The out-of-fold macro-F1 of cross-fitted decisions.

    Attributes:
        macro_f1: the estimate.
        low: lower end of its interval.
        high: upper end.
        confidence: level of the interval.
        samples: number of samples.
        groups: number of groups.
        by_label: (28,) F1.
        positives: (28,) samples with the label.
    """

    macro_f1: float
    low: float
    high: float
    confidence: float
    samples: int
    groups: int
    by_label: npt.NDArray[np.float64]
    positives: npt.NDArray[np.int64]

    def __str__(self) -> str:
        return (
            f"macro-F1 {self.macro_f1:.3f} ({self.confidence:.0%} interval {self.low:.3f} to {self.high:.3f}, "
            f"{self.samples:,} out-of-fold samples, {self.groups:,} groups)"
        )


@dataclass(frozen=True)
class Selection:
    """What is exported.

    Attributes:
        models: the fold models of each model, in float32.
        rule: from their probabilities to decisions.
        views: of test-time augmentation.
        score: of the models and the rule; for a single network, that of its model with all views.
        left_out: models of the run that are not exported because they cannot be, by name, in its order.
        whole: if models are left out, the score with them.
        single: whether it is a single network with a single view.
    """

    models: LoadedModels
    rule: DecisionRule
    views: tuple[str, ...]
    score: ValidationScore
    left_out: tuple[str, ...]
    whole: ValidationScore | None
    single: bool

    @property
    def networks(self) -> list[tuple[str, int, Network]]:
        """Name, input size and network of every fold of every model."""
        return [
            (name, model.recipe.size, model.network)
            for name, folds in self.models.items()
            for model in folds
            if isinstance(model.network, Network)
        ]


class OutOfFold:
    """The out-of-fold predictions of a run's models, and rules that are fitted on some of them."""

    def __init__(self, run: Path, stored: StoredRule, settings: params.Params) -> None:
        """Read the predictions.

        Raises:
            InputError: a file is missing or damaged, or its samples are not those of data/folds.csv.
        """
        self.settings = settings
        table = read_folds(run / paths.FOLDS).sort_values("id")
        ids = table["id"].to_numpy(dtype=np.str_)
        self.truth, self.folds = target_matrix(table["target"]), table["fold"].to_numpy()
        self.groups = table["group"].to_numpy(dtype=np.str_)
        self.members = {model: _read(run, model, folds, ids) for model, folds in stored.members.items()}

    def fit(self, models: Sequence[str]) -> tuple[DecisionRule, ValidationScore]:
        """The rule of some models, fitted as the run's was, and its cross-fitted score."""
        members = np.stack([self.members[model] for model in models])
        fit = partial(fit_rule, settings=self.settings.ensemble)
        return fit(members, self.truth), self._score(cross_fit(members, self.truth, self.folds, fit).decisions)

    def _score(self, decisions: Bools) -> ValidationScore:
        settings = self.settings.score
        drawn = f1_resamples(decisions, self.truth, self.groups, resamples=settings.resamples, seed=settings.seed).mean(
            axis=1
        )
        estimate = macro_f1(decisions, self.truth)
        low, high = interval(drawn, estimate, settings.confidence)
        return ValidationScore(
            estimate,
            low,
            high,
            settings.confidence,
            len(self.truth),
            len(np.unique(self.groups)),
            f1_by_label(decisions, self.truth),
            self.truth.sum(axis=0),
        )


def select(folder: Path, settings: params.Params, *, fast: bool) -> Selection:
    """Choose what to export of the run that trained the models in a folder.

    With ``fast``, it is the first fold of the model with the largest weight, with one view. The rule of a single model
    is fitted on the out-of-fold predictions of this model, which have all views, since single-view ones do not exist.

    Raises:
        InputError: there is no run beside the folder, files are missing or damaged, or no model can be exported.
    """
    run = folder.absolute().parent
    found = find_models(folder)
    stored = stored_rule(run)
    if stored is None:
        raise InputError(f"{run}: no finished run beside {folder}, so there is no decision rule: run dvc repro there")
    if missing := [f"{model} fold {fold}" for model, folds in stored.members.items() for fold in folds
                   if fold not in found.get(model, {})]:  # fmt: skip
        raise InputError(f"{folder} lacks {', '.join(missing)}, which the decision rule needs: run dvc repro")
    loaded = load_models(
        {model: {fold: found[model][fold] for fold in folds} for model, folds in stored.members.items()},
        settings.pack.size,
        precision="fp32",
    )
    possible = {name: folds for name, folds in loaded.items() if isinstance(folds[0].network, Network)}
    if not possible:
        raise InputError(f"{folder}: hand-crafted features cannot be exported to ONNX, and there is no other model")
    left_out = tuple(name for name in loaded if name not in possible)
    predictions = OutOfFold(run, stored, settings)
    names, whole = list(possible), None
    if left_out:
        _, whole = predictions.fit(list(loaded))
    views = tuple(settings.tta.views)
    if fast:
        weights = dict(zip(stored.members, stored.rule.blender.weights, strict=True))
        names = [max(names, key=weights.__getitem__)]
        possible, views = {names[0]: possible[names[0]][:1]}, views[:1]
    rule, score = predictions.fit(names)
    # Fitted again only if it has to be, so that the whole run's package decides with the numbers that the run stored.
    kept = stored.rule if names == list(stored.members) else rule
    return Selection(possible, kept, views, score, left_out, whole, fast)


def _read(run: Path, model: str, folds: Sequence[int], ids: npt.NDArray[np.str_]) -> Floats:
    """Out-of-fold probabilities of a model, (N, 28), for sorted ids."""
    found = [prediction_files.load_predictions(run / paths.predictions(model, fold)) for fold in folds]
    own = np.concatenate([part.held_out_ids for part in found])
    order = np.argsort(own)
    if not np.array_equal(own[order], ids):
        raise InputError(
            f"{run / paths.predictions(model, folds[0]).parent}: its samples are not those of {paths.FOLDS}: run dvc "
            "repro"
        )
    predicted: Floats = np.concatenate([part.held_out for part in found])[order]
    return predicted
