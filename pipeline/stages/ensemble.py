"""Average the models and folds, and choose thresholds.

Reads data/folds.csv and predictions/<model>/fold-K.npz; writes blend/held_out.npz, blend/test.npz and
blend/decisions.json.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline import paths
from pipeline.atlas.folds import read_folds
from pipeline.errors import InputError, run_stage
from pipeline.files import replacing
from pipeline.labels import target_matrix
from pipeline.params import Ensemble, Policy, load
from pipeline.scoring import blend, predictions
from pipeline.scoring.blend import Blend, average
from pipeline.scoring.counts import Thresholds
from pipeline.scoring.crossfit import CrossFit, cross_fit
from pipeline.scoring.metrics import Bools, Floats, macro_f1, macro_f1_present
from pipeline.scoring.predictions import Predictions
from pipeline.scoring.thresholds import POLICIES, choose_thresholds, decide

Members = dict[str, list[Predictions]]


def read_members(models: Iterable[str], folds: pd.DataFrame) -> Members:
    """The predictions of each model, fold by fold.

    Raises:
        InputError: a file is no good, or its samples are not those of the fold or of the test set.
    """
    members: Members = {model: [] for model in models}
    test_ids: npt.NDArray[np.str_] | None = None
    for model, by_fold in members.items():
        for fold in np.unique(folds["fold"]).tolist():
            path = paths.predictions(model, fold)
            found = predictions.load(path)
            test_ids = found.test_ids if test_ids is None else test_ids
            if set(found.held_out_ids) != set(folds.loc[folds["fold"] == fold, "id"]):
                raise InputError(f"{path}: its samples are not those of fold {fold}: run train and tta again")
            if not np.array_equal(found.test_ids, test_ids):
                raise InputError(f"{path}: its test samples are not those of the other predictions: run tta again")
            by_fold.append(found)
    return members


def stitch(by_fold: Sequence[Predictions], ids: "pd.Series[str]") -> Floats:
    """One model's held-out probabilities, (N, 28), in the order of ``ids``."""
    order = pd.Index(np.concatenate([found.held_out_ids for found in by_fold])).get_indexer(pd.Index(ids))
    held_out: Floats = np.concatenate([found.held_out for found in by_fold])[order]
    return held_out


def chooser(policy: Policy, settings: Ensemble) -> Callable[[Floats, Bools], Thresholds]:
    """A policy as a function from probabilities and truth to thresholds."""
    return partial(choose_thresholds, policy, fixed=settings.fixed, shrinkage=settings.shrinkage)


def rate(fit: CrossFit, truth: Bools) -> dict[str, float]:
    """How cross-fitted decisions score."""
    return {
        "macro_f1": macro_f1(fit.decisions, truth),
        "macro_f1_present": macro_f1_present(fit.decisions, truth),
        "labels_per_sample": float(fit.decisions.sum(axis=1).mean()),
    }


def main() -> None:
    """Run the stage."""
    params = load()
    settings = params.ensemble
    samples = read_folds()
    truth = target_matrix(samples["target"])
    folds = samples["fold"].to_numpy()
    members = read_members(params.models, samples)
    by_model = {model: stitch(by_fold, samples["id"]) for model, by_fold in members.items()}
    everyone = [found for by_fold in members.values() for found in by_fold]
    held_out = average(list(by_model.values()), settings.blend)
    test = average([found.test for found in everyone], settings.blend)

    fits = {policy: cross_fit(held_out, truth, folds, chooser(policy, settings)) for policy in POLICIES}
    choose = chooser(settings.thresholds, settings)
    chosen = fits[settings.thresholds]
    thresholds = choose(held_out, truth)
    decisions = {
        "policy": settings.thresholds,
        "thresholds": thresholds.tolist(),
        "thresholds_by_fold": {str(fold): values.tolist() for fold, values in chosen.thresholds.items()},
        "policies": {policy: rate(fit, truth) for policy, fit in fits.items()},
        "models": {model: rate(cross_fit(own, truth, folds, choose), truth) for model, own in by_model.items()},
    }
    Blend(samples["id"].to_numpy(dtype=np.str_), held_out, chosen.decisions).save(blend.HELD_OUT)
    Blend(everyone[0].test_ids, test, decide(test, thresholds)).save(blend.TEST)
    with replacing(blend.DECISIONS) as temporary:
        temporary.write_text(json.dumps(decisions, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_stage(main)
