"""A finished run's way from several models' probabilities to decisions, read back for samples it never saw."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline import paths
from pipeline.errors import InputError
from pipeline.labels import LABELS
from pipeline.scoring import predictions
from pipeline.scoring.blend import DECISIONS
from pipeline.scoring.calibration import Calibration
from pipeline.scoring.metrics import Floats
from pipeline.scoring.mixture import Mixture
from pipeline.scoring.rule import Rule


def stored_rule(run: Path, members: Mapping[str, Sequence[int]]) -> Rule | None:
    """The rule that a run used on its test set, or None where it has left none.

    Args:
        run: the run's folder, in which ``blend/`` and ``models/`` stand.
        members: the folds of each model whose probabilities it will be given, in their order.

    Raises:
        InputError: the file is damaged, or the rule is for other models or folds.
    """
    path = run / DECISIONS
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        weights, folds = content["weights"], {int(fold) for fold in content["by_fold"]}
        calibration = Calibration(float(content["slope"]), np.array(content["offsets"], np.float64))
        thresholds, kind = np.array(content["thresholds"], np.float64), content["blend"]
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is damaged ({error}): run dvc repro in {run.resolve()}, or give --threshold"
        ) from None
    if set(weights) != set(members) or any(set(own) != folds for own in members.values()):
        raise InputError(
            f"{path} is for {_listed(dict.fromkeys(weights, folds))}, but the models are {_listed(members)}: "
            "run dvc repro, name the models it is for, or give --threshold"
        )
    shares = np.array([weights[model] for model in members], np.float64)
    reference = _held_out(run, members) if kind == "ranks" else np.empty((len(members), 0, len(LABELS)))
    return Rule(Mixture(kind, shares, reference), calibration, thresholds)


def plain_rule(models: int, threshold: float) -> Rule:
    """The mean of the models' probabilities as it comes, and one threshold for all labels."""
    mixture = Mixture("probabilities", np.full(models, 1 / models), np.empty((models, 0, len(LABELS))))
    return Rule(mixture, Calibration(1.0, np.zeros(len(LABELS))), np.full(len(LABELS), threshold))


def _held_out(run: Path, members: Mapping[str, Sequence[int]]) -> Floats:
    """The held-out probabilities among which a run's ranks are taken, (M, N, 28), in the same order for each model."""
    stacked = []
    for model, folds in members.items():
        found = [predictions.load(run / paths.predictions(model, fold)) for fold in folds]
        order = np.argsort(np.concatenate([part.held_out_ids for part in found]))
        stacked.append(np.concatenate([part.held_out for part in found])[order])
    return np.stack(stacked)


def _listed(members: Mapping[str, Iterable[int]]) -> str:
    return ", ".join(f"{model} (folds {', '.join(map(str, sorted(folds)))})" for model, folds in members.items())
