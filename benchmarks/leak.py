"""The leak, shown: image-level folds flatter, grouped ones do not (``python -m benchmarks.leak [REPETITIONS]``).

Simulated competitions, each with its own seed, in which the fields of an antibody share its character as they do in
reality. A cheap classifier on pooled features is cross-validated by grouped folds and by image-level ones, and each
score is set beside the test score of the same models. Folds, decisions and intervals are the pipeline's own.

Two questions are asked of a cross-validated score. Does its 95 % interval hold the test score? The test set is a
sample too, so even an honest interval misses it more often than one time in twenty. Is the test score within the
95 % range that is expected of a test set of its size? That allows for both, and should hold nineteen times in twenty.
``python -m benchmarks.leak_network`` asks the same of a real network.
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
WAYS = ("grouped", "image-level")
RESAMPLES = 1000
CONFIDENCE = 0.95
TREES = 150
QUANTILES = (0.5, 0.75, 0.9, 0.97, 0.995)
OCTAVES = 4


@dataclass(frozen=True)
class Half:
    """The training or the test samples of a competition: features (N, F), truth (N, 28) and antibodies (N,)."""

    features: Floats
    truth: Bools
    groups: Groups


def describe(image: Pixels) -> npt.NDArray[np.float64]:
    """Pooled features of an image (S, S, 4) uint8: levels, texture by octave and correlations of the channels.

    They are relative to the image's mean, which cancels the exposure; the balance of the channels stays, as what
    an antibody is known by.
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
    related = np.corrcoef(light.reshape(-1, len(CHANNELS)).T)
    upper = related[np.triu_indices(len(CHANNELS), 1)]
    return np.concatenate([levels.ravel(), means, np.ravel(octaves), upper])


def simulate(settings: Simulation) -> dict[str, Half]:
    """Draw a competition: its halves ``train`` and ``test``."""
    halves = {}
    entries = plan(settings)
    for split in ("train", "test"):
        own = [entry for entry in entries if entry.split == split]
        halves[split] = Half(
            np.stack([describe(render(entry, settings)) for entry in own]),
            target_matrix(format_target(entry.labels) for entry in own),
            np.array([entry.group for entry in own]),
        )
    return halves


def predict(train: Half, test: Half, folds: npt.NDArray[np.int64], seed: int) -> tuple[Floats, Floats]:
    """Probabilities of the held-out and, averaged over the folds' models, of the test samples."""
    held_out, by_fold = np.zeros(train.truth.shape), []
    for fold in range(FOLDS):
        rest = folds != fold
        trees = ExtraTreesRegressor(TREES, max_features=0.3, random_state=seed)
        trees.fit(train.features[rest], train.truth[rest])
        held_out[~rest] = trees.predict(train.features[~rest])
        by_fold.append(trees.predict(test.features))
    return held_out, np.mean(by_fold, axis=0)


def judge(train: Half, test: Half, way: str, seed: int) -> dict[str, object]:
    """Cross-validate in one way, and set the score beside that of the test set."""
    unit = train.groups if way == "grouped" else np.arange(len(train.truth)).astype(np.str_)
    folds = assign_folds(train.truth, unit, FOLDS, seed)
    held_out, unseen = predict(train, test, folds, seed)
    plain = load().ensemble.model_copy(update={"blend": "probabilities", "calibration": "none"})
    fit = partial(fit_rule, settings=plain)
    decisions = cross_fit(held_out[None], train.truth, folds, fit).decisions
    score = macro_f1(decisions, train.truth)
    test_score = macro_f1(fit(held_out[None], train.truth).blend(unseen[None])[2], test.truth)
    # Both ways get the wider intervals of the groups, which one who splits images would not have.
    resample = partial(f1_resamples, decisions, train.truth, train.groups, resamples=RESAMPLES)
    resampled = resample(seed=seed).mean(axis=1)
    future = resample(seed=seed + 1, size=len(np.unique(test.groups))).mean(axis=1)
    low, high = interval(resampled, score, CONFIDENCE)
    least, most = expected_range(resampled, future, score, CONFIDENCE)
    return {
        "folds": way,
        "cross-validated": score,
        "low": low,
        "high": high,
        "test": test_score,
        "interval holds test": low <= test_score <= high,
        "test as expected": least <= test_score <= most,
    }


def repeat(seed: int, settings: Simulation) -> list[dict[str, object]]:
    """One simulated competition, judged in both ways."""
    halves = simulate(settings.model_copy(update={"seed": seed}))
    return [{"seed": seed} | judge(halves["train"], halves["test"], way, seed) for way in WAYS]


def summarise(rows: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Means over the repetitions, by way: the scores, and how often each question is answered with yes."""
    means = rows.drop(columns="seed").groupby("folds").mean()
    return {
        str(way): {str(name): round(float(value), 4) for name, value in row.items()} for way, row in means.iterrows()
    }


def main() -> None:
    """Print every repetition, and the shares last."""
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else REPETITIONS
    # Small images, so that a repetition costs seconds; the rest, the exposure above all, as in the default run.
    settings = load().sample.model_copy(update={"train": 300, "test": 200, "size": 64})
    work = partial(repeat, settings=settings)
    seeds = range(1, repetitions + 1)
    found = track(in_order(work, seeds, os.cpu_count() or 1), "leak", total=repetitions, unit="competitions")
    rows = pd.DataFrame([row for both in found for row in both])
    report(rows, {"n": repetitions, "confidence": CONFIDENCE, **summarise(rows)})


if __name__ == "__main__":
    run_main(main)
