"""Diagnostics of out-of-fold predictions, for the tables beside the scores.

Precision-recall curves, the bins of the calibration error, pairs of confused labels, the samples that the report shows,
baselines that use no image, and a check for leakage between folds.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial import cKDTree
from sklearn.metrics import precision_recall_curve

from pipeline.core.labels import LABELS
from pipeline.evaluation.metrics import CALIBRATION_BINS, Bools, Floats, macro_f1

POINTS = 50
"""Points that are kept of a precision-recall curve."""

ERRORS = 12
"""Wrong decisions that are kept as examples."""


def precision_recall(probabilities: Floats, truth: Bools) -> pd.DataFrame:
    """Precision and recall at a range of thresholds, for each label that occurs.

    Args:
        probabilities: (N, 28).
        truth: (N, 28).

    Returns:
        Columns ``label``, ``name``, ``threshold``, ``recall`` and ``precision``; at most `POINTS` rows per label,
        evenly spaced in recall, by ascending threshold.
    """
    parts = []
    for label in np.flatnonzero(truth.any(axis=0)).tolist():
        precision, recall, thresholds = precision_recall_curve(truth[:, label], probabilities[:, label])
        # scikit-learn appends the point of precision 1 and recall 0, which has no threshold.
        curve = pd.DataFrame({"threshold": thresholds, "recall": recall[:-1], "precision": precision[:-1]})
        spaced = np.linspace(curve["recall"].iloc[0], curve["recall"].iloc[-1], POINTS)
        kept = np.unique(np.searchsorted(-curve["recall"], -spaced))
        parts.append(curve.iloc[kept].assign(label=label, name=LABELS[label]))
    return pd.concat(parts, ignore_index=True)[["label", "name", "threshold", "recall", "precision"]]


def reliability(probabilities: Floats, truth: Bools) -> pd.DataFrame:
    """The bins of the calibration error, over all (sample, label) pairs.

    Returns:
        A row per bin: ``confidence`` (mean probability), ``observed`` (share of positives) and ``n`` (pairs). The first
        two are missing in an empty bin.
    """
    flat = probabilities.astype(np.float64).ravel()
    bins = np.minimum((flat * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    pairs = pd.DataFrame({"confidence": flat, "observed": truth.ravel().astype(np.float64)}).groupby(bins)
    return pairs.mean().assign(n=pairs.size()).reindex(range(CALIBRATION_BINS)).fillna({"n": 0}).astype({"n": np.int64})


def confusions(decisions: Bools, truth: Bools) -> pd.DataFrame:
    """Count the samples in which one label is missed and another one is wrongly predicted.

    Args:
        decisions: (N, 28).
        truth: (N, 28).

    Returns:
        Columns ``label_true`` (missed), ``label_predicted`` (wrongly predicted) and ``count``, the most frequent pair
        first. A sample counts once for each of its pairs.
    """
    missed, false_positive = truth & ~decisions, decisions & ~truth
    counts = missed.astype(np.int64).T @ false_positive
    true, predicted = counts.nonzero()
    table = pd.DataFrame({"label_true": true, "label_predicted": predicted, "count": counts[true, predicted]})
    return table.sort_values("count", ascending=False, kind="stable", ignore_index=True)


def choose_examples(
    probabilities: Floats, decisions: Bools, truth: Bools, groups: npt.NDArray[np.str_]
) -> pd.DataFrame:
    """Choose the (sample, label) pairs that the report shows.

    Args:
        probabilities: (N, 28), out-of-fold.
        decisions: (N, 28).
        truth: (N, 28).
        groups: (N,).

    Returns:
        A row per pair with ``position`` (in the arrays), ``label`` and ``kind``. For each label, "best" and "worst" are
        the positive samples with its highest and lowest probability (only "best" if there is one positive). "error" are
        the wrong decisions of `gravest_errors`, the gravest first.
    """
    rows = []
    for label in range(truth.shape[1]):
        having = np.flatnonzero(truth[:, label])
        ranked = having[np.argsort(-probabilities[having, label], kind="stable")]
        rows += [(position, label, "best") for position in ranked[:1]]
        rows += [(position, label, "worst") for position in ranked[1:][-1:]]
    rows += [(position, label, "error") for position, label in gravest_errors(probabilities, decisions, truth, groups)]
    return pd.DataFrame(rows, columns=["position", "label", "kind"])


def gravest_errors(
    probabilities: Floats, decisions: Bools, truth: Bools, groups: npt.NDArray[np.str_]
) -> list[tuple[int, int]]:
    """The most confident wrong decisions, as (position, label): at most `ERRORS`, and one per group.

    The confidence of a false positive is the label's probability, that of a missed label one minus it. Samples of a
    group are limited to one because they tend to share an error.
    """
    confidence: npt.NDArray[np.float64] = np.where(decisions != truth, np.abs(truth - probabilities), -1.0)
    label = confidence.argmax(axis=1)
    gravest = confidence[np.arange(len(truth)), label]
    order = np.argsort(-gravest, kind="stable")
    order = order[np.sort(np.unique(groups[order], return_index=True)[1])][:ERRORS]
    return [(int(position), int(label[position])) for position in order if gravest[position] >= 0]


def baseline_macro_f1(truth: Bools, folds: npt.NDArray[np.int64]) -> dict[str, float]:
    """Macro-F1 of three trivial classifiers that use no image.

    Args:
        truth: (N, 28).
        folds: (N,).

    Returns:
        ``majority``: predict for every sample the most frequent label of the other folds.
        ``all_positive``: predict every label for every sample.
        ``prior``: predict each label for k random samples, where k of N are positive. This is the expected value:
        k * k / N are true positives on average, so the expected F1 is the label's frequency k / N.
    """
    majority = np.zeros_like(truth)
    for fold in np.unique(folds):
        majority[folds == fold, truth[folds != fold].sum(axis=0).argmax()] = True
    return {
        "majority": macro_f1(majority, truth),
        "all_positive": macro_f1(np.ones_like(truth), truth),
        "prior": float(truth.mean(axis=0).mean()),
    }


def copied_macro_f1(brightness: Floats, truth: Bools, folds: npt.NDArray[np.int64]) -> float:
    """Macro-F1 of copying the labels of the sample with the most similar brightness in the other folds.

    Brightness says little about the location of a protein but identifies the antibody. So a score above the baselines
    means that samples of one antibody are in different folds, and that the scores of all models are inflated by it.

    Args:
        brightness: (N, F), brightness statistics of each image; each column is standardised.
        truth: (N, 28).
        folds: (N,), with at least two different values.
    """
    scaled = (brightness - brightness.mean(axis=0)) / np.maximum(brightness.std(axis=0), 1e-9)
    copied = np.zeros_like(truth)
    for fold in np.unique(folds):
        held_out = folds == fold
        _, nearest = cKDTree(scaled[~held_out]).query(scaled[held_out])
        copied[held_out] = truth[~held_out][nearest]
    return macro_f1(copied, truth)
