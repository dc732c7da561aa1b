"""Optimism of cross-validation on image-level folds: ``python -m benchmarks.leak [REPETITIONS]``.

In simulated competitions, each with its own seed, the fields of one antibody resemble each other as real ones do. A
cheap classifier on pooled features is cross-validated with grouped and with image-level folds; each score is compared
with the test score of the same models. Folds, decisions and intervals are the pipeline's own.

For each cross-validated score it reports whether its 95 % interval contains the test score, and whether the test score
lies in the 95 % range expected for a test set of its size. The first holds in less than 95 % of the repetitions even
without a leak, because the test score has a sampling error of its own; the second accounts for it and should hold in
95 %.
``python -m benchmarks.leak_network`` does the same for a real network.
"""

import os
import sys
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.ensemble import ExtraTreesRegressor

from benchmarks.interleaved import report
from pipeline.core.entry import run_main
from pipeline.core.labels import CHANNELS, format_target, target_matrix
from pipeline.core.params import Simulation, load
from pipeline.core.progress import track
from pipeline.data.fold_assignment import assign_folds
from pipeline.evaluation.decision_rule import cross_fit, fit_rule
from pipeline.evaluation.intervals import expected_range, f1_resamples, interval
from pipeline.evaluation.metrics import Bools, Floats, macro_f1
from pipeline.simulation.competition import plan
from pipeline.simulation.competition_archive import in_order
from pipeline.simulation.raster import Pixels
from pipeline.simulation.render import render

Groups = npt.NDArray[np.str_]

REPETITIONS = 24
FOLDS = 3
SPLITS = ("grouped", "image-level")
RESAMPLES = 1000
CONFIDENCE = 0.95
TREES = 150
QUANTILES = (0.5, 0.75, 0.9, 0.97, 0.995)
OCTAVES = 4


@dataclass(frozen=True)
class Half:
    """The training or test samples of a competition: features (N, F), truth (N, 28) and antibodies (N,)."""

    features: Floats
    truth: Bools
    groups: Groups


def pooled_features(image: Pixels) -> npt.NDArray[np.float64]:
    """Features of an image (S, S, 4) uint8: quantiles, texture by octave, and correlations of the channels.

    They are relative to the image's mean intensity, so the exposure cancels; the ratio of the channels, by which an
    antibody can be recognised, remains.
    """
    light = image / max(image.mean(), 1)
    levels = np.quantile(light, QUANTILES, axis=(0, 1))
    means = light.mean(axis=(0, 1))
    octaves = []
    for _ in range(OCTAVES):
        size = len(light) // 2
        pooled = light.reshape(size, 2, size, 2, len(CHANNELS)).mean(axis=(1, 3))
        octaves.append((light - pooled.repeat(2, axis=0).repeat(2, axis=1)).std(axis=(0, 1)))
        light = pooled
    correlations = np.corrcoef(light.reshape(-1, len(CHANNELS)).T)
    upper = correlations[np.triu_indices(len(CHANNELS), 1)]
    return np.concatenate([levels.ravel(), means, np.ravel(octaves), upper])


def simulate(settings: Simulation) -> dict[str, Half]:
    """Simulate a competition; returns its halves ``train`` and ``test``."""
    halves = {}
    entries = plan(settings)
    for split in ("train", "test"):
        own = [entry for entry in entries if entry.split == split]
        halves[split] = Half(
            np.stack([pooled_features(render(entry, settings)) for entry in own]),
            target_matrix(format_target(entry.labels) for entry in own),
            np.array([entry.group for entry in own]),
        )
    return halves


def predict(train: Half, test: Half, folds: npt.NDArray[np.int64], seed: int) -> tuple[Floats, Floats]:
    """Out-of-fold probabilities, and test probabilities averaged over the folds' models."""
    held_out, by_fold = np.zeros(train.truth.shape), []
    for fold in range(FOLDS):
        rest = folds != fold
        trees = ExtraTreesRegressor(TREES, max_features=0.3, random_state=seed)
        trees.fit(train.features[rest], train.truth[rest])
        held_out[~rest] = trees.predict(train.features[~rest])
        by_fold.append(trees.predict(test.features))
    return held_out, np.mean(by_fold, axis=0)


def cross_validate(train: Half, test: Half, split: str, seed: int) -> dict[str, object]:
    """Cross-validate with one kind of folds, and compare with the test score."""
    unit = train.groups if split == "grouped" else np.arange(len(train.truth)).astype(np.str_)
    folds = assign_folds(train.truth, unit, FOLDS, seed)
    held_out, unseen = predict(train, test, folds, seed)
    plain = load().ensemble.model_copy(update={"blend": "probabilities", "calibration": "none"})
    fit = partial(fit_rule, settings=plain)
    decisions = cross_fit(held_out[None], train.truth, folds, fit).decisions
    score = macro_f1(decisions, train.truth)
    test_score = macro_f1(fit(held_out[None], train.truth).apply(unseen[None])[2], test.truth)
    # Both get the wider intervals of a bootstrap over groups; whoever splits by image would use narrower ones.
    resample = partial(f1_resamples, decisions, train.truth, train.groups, resamples=RESAMPLES)
    resampled = resample(seed=seed).mean(axis=1)
    future = resample(seed=seed + 1, size=len(np.unique(test.groups))).mean(axis=1)
    low, high = interval(resampled, score, CONFIDENCE)
    least, most = expected_range(resampled, future, score, CONFIDENCE)
    return {
        "folds": split,
        "cross-validated": score,
        "low": low,
        "high": high,
        "test": test_score,
        "interval contains test": low <= test_score <= high,
        "test in expected range": least <= test_score <= most,
    }


def repeat(seed: int, settings: Simulation) -> list[dict[str, object]]:
    """Cross-validate one simulated competition with both kinds of folds."""
    halves = simulate(settings.model_copy(update={"seed": seed}))
    return [{"seed": seed} | cross_validate(halves["train"], halves["test"], split, seed) for split in SPLITS]


def summarise(rows: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Means over the repetitions by kind of folds; the mean of a statement is the share in which it holds."""
    means = rows.drop(columns="seed").groupby("folds").mean()
    return {
        str(split): {str(name): round(float(value), 4) for name, value in row.items()}
        for split, row in means.iterrows()
    }


def main() -> None:
    """Print every repetition, and the means as the last line."""
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else REPETITIONS
    # Small images, so that a repetition takes seconds; all else, including the exposure, is as in the default run.
    settings = load().sample.model_copy(update={"train": 300, "test": 200, "size": 64})
    work = partial(repeat, settings=settings)
    seeds = range(1, repetitions + 1)
    found = track(in_order(work, seeds, os.cpu_count() or 1), "leak", total=repetitions, unit="competitions")
    rows = pd.DataFrame([row for both in found for row in both])
    report(rows, {"n": repetitions, "confidence": CONFIDENCE, **summarise(rows)})


if __name__ == "__main__":
    run_main(main)
