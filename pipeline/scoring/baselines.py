"""What no image is needed for: the scores that any model has to beat."""

import numpy as np
import numpy.typing as npt

from pipeline.scoring.metrics import Bools, macro_f1


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
