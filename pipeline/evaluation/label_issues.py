"""Likely annotation errors: given labels that confident out-of-fold probabilities contradict."""

import numpy as np
import pandas as pd

from pipeline.core.labels import LABELS
from pipeline.evaluation.metrics import Bools, Floats

TOLERANCE = 1e-6
"""A probability that is lower than a threshold by less than this reaches it, so that rounding does not matter."""


def find_label_issues(probabilities: Floats, given: Bools) -> Bools:
    """Find the labels that are likely given or missing by mistake: (N, 28).

    Confident learning (Northcutt et al., "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 2021) for
    each label on its own. A sample certainly has the label if its probability reaches the mean probability of the
    samples to which the label is given, and certainly lacks it if the probability of not having it reaches the mean of
    the other samples. If both hold, the more probable one counts. An issue is a label whose given state is certainly
    wrong and is also the less probable one. These are the off-diagonal samples of the paper's confident joint.

    Labels that are given to all samples or to none have no issues.

    Args:
        probabilities: (N, 28), calibrated, by models that were not trained on the sample.
        given: (N, 28), the annotation.
    """
    present = probabilities.astype(np.float64)
    # By state of the annotation: 0 for absent, 1 for present.
    own = np.stack([1 - present, present])  # 2, N, 28
    members = np.stack([~given, given])
    counts = members.sum(axis=1, keepdims=True)
    means = np.where(members, own, 0).sum(axis=1, keepdims=True) / np.maximum(counts, 1)
    certain = (own >= means - TOLERANCE) & (counts > 0)
    found: Bools = np.where(given, certain[0] & (own[0] > own[1]), certain[1] & (own[1] > own[0]))
    return found


def rank_label_issues(probabilities: Floats, given: Bools) -> pd.DataFrame:
    """The issues of ``find_label_issues``, the most confident first.

    Args:
        probabilities: (N, 28).
        given: (N, 28).

    Returns:
        A row per issue with ``position`` (of the sample), ``label``, ``name``, ``given`` and ``suggested`` (1 for
        present, 0 for absent), and ``confidence``: the probability of what is suggested.
    """
    positions, labels = find_label_issues(probabilities, given).nonzero()
    present = given[positions, labels]
    predicted = probabilities[positions, labels].astype(np.float64)
    table = pd.DataFrame(
        {
            "position": positions,
            "label": labels,
            "name": [LABELS[label] for label in labels],
            "given": present.astype(np.int64),
            "suggested": (~present).astype(np.int64),
            "confidence": np.where(present, 1 - predicted, predicted),
        }
    )
    return table.sort_values("confidence", ascending=False, kind="stable", ignore_index=True)
