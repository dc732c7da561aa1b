"""Where decisions and probabilities go wrong: precision against recall, calibration, and labels taken for others."""

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_curve

from pipeline.labels import LABELS
from pipeline.scoring.metrics import CALIBRATION_BINS, Bools, Floats

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
