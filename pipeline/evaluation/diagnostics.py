"""Where decisions and probabilities go wrong: precision against recall, calibration, and labels taken for others."""

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial import cKDTree
from sklearn.metrics import precision_recall_curve

from pipeline.core.labels import LABELS
from pipeline.evaluation.metrics import CALIBRATION_BINS, Bools, Floats, macro_f1

POINTS = 50
"""Of a precision-recall curve that are kept."""


def precision_recall(probabilities: Floats, truth: Bools) -> pd.DataFrame:
    """Precision and recall over the thresholds of each label that some sample has.

    Args:
        probabilities: (N, 28).
        truth: (N, 28).

    Returns:
        ``label``, ``name``, ``threshold``, ``recall`` and ``precision``, at most `POINTS` rows a label, evenly spaced
        in recall, the lowest threshold first.
    """
    parts = []
    for label in np.flatnonzero(truth.any(axis=0)).tolist():
        precision, recall, thresholds = precision_recall_curve(truth[:, label], probabilities[:, label])
        # The last point, precision 1 at recall 0, has no threshold and is no decision.
        curve = pd.DataFrame({"threshold": thresholds, "recall": recall[:-1], "precision": precision[:-1]})
        spaced = np.linspace(curve["recall"].iloc[0], curve["recall"].iloc[-1], POINTS)
        kept = np.unique(np.searchsorted(-curve["recall"], -spaced))
        parts.append(curve.iloc[kept].assign(label=label, name=LABELS[label]))
    return pd.concat(parts, ignore_index=True)[["label", "name", "threshold", "recall", "precision"]]


def reliability(probabilities: Floats, truth: Bools) -> pd.DataFrame:
    """The bins of the calibration error: mean probability and share of positives of all (sample, label) pairs in each.

    Returns:
        ``confidence``, ``observed`` and ``n``, a row a bin; the first two are missing where a bin is empty.
    """
    flat = probabilities.astype(np.float64).ravel()
    bins = np.minimum((flat * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    pairs = pd.DataFrame({"confidence": flat, "observed": truth.ravel().astype(np.float64)}).groupby(bins)
    return pairs.mean().assign(n=pairs.size()).reindex(range(CALIBRATION_BINS)).fillna({"n": 0}).astype({"n": np.int64})


def confusions(decisions: Bools, truth: Bools) -> pd.DataFrame:
    """How often one label is missed where another is wrongly given.

    Args:
        decisions: (N, 28).
        truth: (N, 28).

    Returns:
        ``label_true`` (missed), ``label_predicted`` (wrongly given) and ``count``, of samples, the most frequent first;
        a sample counts once for each such pair.
    """
    missed, given = truth & ~decisions, decisions & ~truth
    counts = missed.astype(np.int64).T @ given
    true, predicted = counts.nonzero()
    table = pd.DataFrame({"label_true": true, "label_predicted": predicted, "count": counts[true, predicted]})
    return table.sort_values("count", ascending=False, kind="stable", ignore_index=True)


ERRORS = 12
"""How many of the gravest errors are kept."""


def choose_examples(
    probabilities: Floats, decisions: Bools, truth: Bools, groups: npt.NDArray[np.str_]
) -> pd.DataFrame:
    """Choose the pairs of sample and label to show.

    Args:
        probabilities: (N, 28), held-out.
        decisions: (N, 28).
        truth: (N, 28).
        groups: (N,).

    Returns:
        A row each with ``position`` (in the arrays), ``label`` and ``kind``: "best" and "worst" are the samples
        with a label that have the highest and the lowest probability of it, for each label in turn (one that a
        single sample has gets a "best" alone); "error" are the wrong decisions that were most certain, the
        gravest first, at most one a group: its samples err alike.
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
    """The wrong decisions farthest from the truth, as position and label, at most one a group and `ERRORS` in all.

    How far a false alarm is from the truth is the label's probability; a missed label, one minus it.
    """
    distance: npt.NDArray[np.float64] = np.where(decisions != truth, np.abs(truth - probabilities), -1.0)
    label = distance.argmax(axis=1)
    gravest = distance[np.arange(len(truth)), label]
    order = np.argsort(-gravest, kind="stable")
    order = order[np.sort(np.unique(groups[order], return_index=True)[1])][:ERRORS]
    return [(int(position), int(label[position])) for position in order if gravest[position] >= 0]


def baseline_macro_f1(truth: Bools, folds: npt.NDArray[np.int64]) -> dict[str, float]:
    """Macro-F1 of three ways to decide without looking.

    Args:
        truth: (N, 28).
        folds: (N,).

    Returns:
        ``majority``: every sample gets the one label most frequent in the other folds.
        ``all_positive``: every sample gets every label.
        ``prior``: every label goes, at random, to as many samples as have it; the expected value, which is
        the label's share: by drawing k of N samples where k are positive, k * k / N are hit.
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
    """Macro-F1 of giving each sample the labels of the one most alike in the other folds.

    Brightness hardly says where a protein sits, but it does say which antibody it is: what this scores above the
    baselines is memory of the antibody, by which such folds flatter every model.

    Args:
        brightness: (N, F), figures of each image; they are brought to one scale.
        truth: (N, 28).
        folds: (N,), at least two different ones.
    """
    scaled = (brightness - brightness.mean(axis=0)) / np.maximum(brightness.std(axis=0), 1e-9)
    copied = np.zeros_like(truth)
    for fold in np.unique(folds):
        held_out = folds == fold
        _, nearest = cKDTree(scaled[~held_out]).query(scaled[held_out])
        copied[held_out] = truth[~held_out][nearest]
    return macro_f1(copied, truth)
