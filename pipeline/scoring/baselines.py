"""What no network is needed for: the scores that any model has to beat, and how far memory alone gets."""

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from pipeline.scoring.metrics import Bools, Floats, macro_f1


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
