"""A finished run's way from several models' probabilities to decisions, read back for samples it never saw."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class StoredRule:
    """A rule read back.

    Attributes:
        rule: as it was used on the run's test set.
        members: the folds of each model whose mean probabilities it takes, in its order.
    """

    rule: Rule
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
    mixture = Mixture(kind, shares, reference)
    return StoredRule(Rule(mixture, calibration, thresholds), members)


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
