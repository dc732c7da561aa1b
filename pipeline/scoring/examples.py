"""The samples worth a look: the best and the worst of each label, and the gravest errors."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.scoring.metrics import Bools, Floats

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
