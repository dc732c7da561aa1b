"""Blend the models, calibrate the blend, and choose thresholds.

Reads data/folds.csv and predictions/<model>/fold-K.npz. Writes to blend/: held_out.npz (out-of-fold predictions, cross-
fitted), test.npz (test predictions, models of all folds), test-as-fold-K.npz (test predictions, single-fold models) and
decisions.json (the decision rule, and the scores of the alternatives to it).
"""

import json
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.core import paths
from pipeline.core.entry import run_main
from pipeline.core.errors import InputError
from pipeline.core.labels import target_matrix
from pipeline.core.params import Ensemble, load
from pipeline.core.paths import replacing
from pipeline.core.progress import track
from pipeline.data.fold_table import read_folds
from pipeline.evaluation import prediction_files, result_files
from pipeline.evaluation.blending import BLENDINGS
from pipeline.evaluation.calibration import CALIBRATIONS
from pipeline.evaluation.decision_rule import CrossFit, DecisionRule, cross_fit, fit_rule
from pipeline.evaluation.metrics import Bools, Floats, calibration_error, macro_f1, macro_f1_present
from pipeline.evaluation.prediction_files import Predictions
from pipeline.evaluation.result_files import Blend
from pipeline.evaluation.thresholds import POLICIES

Members = dict[str, list[Predictions]]
"""The predictions of each model, by fold."""


def read_members(models: Iterable[str], folds: pd.DataFrame) -> Members:
    """Read the predictions of each model, by fold.

    Raises:
        InputError: a file is missing or damaged, or its samples are not those of the fold or of the test set.
    """
    members: Members = {model: [] for model in models}
    test_ids: npt.NDArray[np.str_] | None = None
    for model, by_fold in members.items():
        for fold in np.unique(folds["fold"]).tolist():
            path = paths.predictions(model, fold)
            found = prediction_files.load_predictions(path)
            test_ids = found.test_ids if test_ids is None else test_ids
            if set(found.held_out_ids) != set(folds.loc[folds["fold"] == fold, "id"]):
                raise InputError(f"{path}: its samples are not those of fold {fold}: run train and tta again")
            if not np.array_equal(found.test_ids, test_ids):
                raise InputError(f"{path}: its test samples are not those of the other predictions: run tta again")
            by_fold.append(found)
    return members


def stitch(by_fold: Sequence[Predictions], ids: "pd.Series[str]") -> Floats:
    """One model's out-of-fold probabilities, (N, 28), in the order of ``ids``."""
    order = pd.Index(np.concatenate([found.held_out_ids for found in by_fold])).get_indexer(pd.Index(ids))
    held_out: Floats = np.concatenate([found.held_out for found in by_fold])[order]
    return held_out


def rate(fit: CrossFit, truth: Bools) -> dict[str, float]:
    """The scores of cross-fitted decisions."""
    return {
        "macro_f1": macro_f1(fit.decisions, truth),
        "macro_f1_present": macro_f1_present(fit.decisions, truth),
        "labels_per_sample": float(fit.decisions.sum(axis=1).mean()),
        "calibration_error": calibration_error(fit.probabilities, truth),
    }


def compare(
    settings: Ensemble, members: Floats, truth: Bools, folds: npt.NDArray[np.int64]
) -> dict[str, dict[str, dict[str, float]]]:
    """Cross-fitted scores of every policy, blend and calibration, each with the other two settings unchanged."""
    compared: dict[str, dict[str, dict[str, float]]] = {}
    for key, values in (("thresholds", POLICIES), ("blend", BLENDINGS), ("calibration", CALIBRATIONS)):
        compared[key] = {}
        for value in track(values, f"comparing {key}", unit="settings"):
            fit = partial(fit_rule, settings=settings.model_copy(update={key: value}))
            compared[key][value] = rate(cross_fit(members, truth, folds, fit), truth)
    return compared


def describe(rule: DecisionRule, models: Iterable[str]) -> dict[str, Any]:
    """A rule as it is written to decisions.json."""
    return {
        "weights": dict(zip(models, rule.blender.weights.tolist(), strict=True)),
        "slope": rule.calibration.slope,
        "offsets": rule.calibration.offsets.tolist(),
        "thresholds": rule.thresholds.tolist(),
    }


def main() -> None:
    """Run the stage."""
    params = load()
    settings = params.ensemble
    samples = read_folds()
    truth = target_matrix(samples["target"])
    folds = samples["fold"].to_numpy()
    predicted = read_members(params.models, samples)
    members = np.stack([stitch(by_fold, samples["id"]) for by_fold in predicted.values()])
    # Averaged over folds, so that test predictions have one entry per model, as the weights do.
    test = np.stack([np.mean([found.test for found in by_fold], axis=0) for by_fold in predicted.values()])

    fit = partial(fit_rule, settings=settings)
    held_out = cross_fit(members, truth, folds, fit)
    rule = fit(members, truth)
    compared = compare(settings, members, truth, folds)
    alone = {
        model: rate(cross_fit(own[None], truth, folds, fit), truth)
        for model, own in zip(predicted, members, strict=True)
    }
    decisions = {
        "policy": settings.thresholds,
        "blend": settings.blend,
        "calibration": settings.calibration,
        **describe(rule, predicted),
        "by_fold": {str(fold): describe(own, predicted) for fold, own in held_out.rules.items()},
        "policies": compared["thresholds"],
        "blends": compared["blend"],
        "calibrations": compared["calibration"],
        "models": alone,
    }
    ids = samples["id"].to_numpy(dtype=np.str_)
    Blend(ids, held_out.uncalibrated, held_out.probabilities, held_out.decisions).save(result_files.HELD_OUT)
    test_ids = next(iter(predicted.values()))[0].test_ids
    Blend(test_ids, *rule.apply(test)).save(result_files.TEST)
    for position, (fold, own) in enumerate(held_out.rules.items()):
        single_fold = np.stack([by_fold[position].test for by_fold in predicted.values()])
        Blend(test_ids, *own.apply(single_fold)).save(result_files.single_fold_test(fold))
    with replacing(result_files.DECISIONS) as temporary:
        temporary.write_text(json.dumps(decisions, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_main(main)
