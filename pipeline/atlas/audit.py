"""Proof that folds neither leak nor lean: what each one holds, of every label."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.labels import LABELS

UNASSIGNED = -1
"""In place of a fold: the sample is of the test set."""


def leaked_share(groups: npt.NDArray[np.str_], folds: npt.NDArray[np.int64]) -> float:
    """The share of samples whose group has samples in another fold as well.

    When a sample is held out, such a group is in training: its score measures memory.
    """
    table = pd.DataFrame({"group": groups, "fold": folds})
    return float((table.groupby("group")["fold"].transform("nunique") > 1).mean())


def duplicates_audit(
    duplicates: pd.DataFrame, pairs: npt.NDArray[np.int64], folds: npt.NDArray[np.int64]
) -> dict[str, Any]:
    """Count the duplicates, and the training samples that have one in another fold.

    Args:
        duplicates: as `find_duplicates` lists them.
        pairs: (P, 2) their positions among all samples.
        folds: (N,) of all samples, ``UNASSIGNED`` for test samples.

    Returns:
        A JSON-ready summary.
    """
    ours, theirs = folds[pairs].T
    split = pairs[(ours != theirs) & (ours != UNASSIGNED) & (theirs != UNASSIGNED)]
    training = int((folds != UNASSIGNED).sum())
    return {
        "held_out_share_with_duplicate_in_training": len(np.unique(split)) / training,
        "duplicates": {
            "exact": int((duplicates["kind"] == "exact").sum()),
            "near": int((duplicates["kind"] == "near").sum()),
            "training_and_test": int((duplicates["split_a"] != duplicates["split_b"]).sum()),
            "different_labels": int((duplicates["labels"] == "different").sum()),
        },
    }


def refuse_leaks(audit: Mapping[str, Any]) -> None:
    """Stop before folds are written of which scores would measure memory.

    Raises:
        RuntimeError: a group or a duplicate is on both sides of a fold, which is a fault of this program.
    """
    for kind in ("group", "duplicate"):
        if share := audit[f"held_out_share_with_{kind}_in_training"]:
            raise RuntimeError(f"the folds leak: {share:.2%} of the held-out samples have their {kind} in training")


def audit_folds(
    truth: npt.NDArray[np.bool_], groups: npt.NDArray[np.str_], folds: npt.NDArray[np.int64]
) -> dict[str, Any]:
    """Samples, groups and positives of each fold, and how even they are.

    Args:
        truth: (N, 28).
        groups: (N,).
        folds: (N,).

    Returns:
        A JSON-ready summary. ``imbalance`` is the worst and the mean over labels of the largest relative
        deviation of a fold's positives from the label's mean over folds, for labels with at least as many
        groups as folds.
    """
    ids = np.unique(folds).tolist()
    positives = np.array([truth[folds == fold].sum(axis=0) for fold in ids])
    holding = np.array([groups_by_label(truth[folds == fold], groups[folds == fold]) for fold in ids])
    enough = groups_by_label(truth, groups) >= len(ids)
    even = positives[:, enough].mean(axis=0)
    deviations = np.abs(positives[:, enough] / even - 1).max(axis=0)
    return {
        "held_out_share_with_group_in_training": leaked_share(groups, folds),
        "imbalance": {
            "labels": int(enough.sum()),
            "worst": float(deviations.max(initial=0)),
            "mean": float(deviations.mean()) if enough.any() else 0.0,
        },
        "folds": {
            str(fold): {
                "samples": int((folds == fold).sum()),
                "groups": len(np.unique(groups[folds == fold])),
            }
            for fold in ids
        },
        "labels": {
            name: {"positives": positives[:, label].tolist(), "groups": holding[:, label].tolist()}
            for label, name in enumerate(LABELS)
        },
    }


def groups_by_label(truth: npt.NDArray[np.bool_], groups: npt.NDArray[np.str_]) -> npt.NDArray[np.int64]:
    """How many groups hold each label, (28,), from truth (N, 28) and groups (N,)."""
    return np.array([len(np.unique(groups[column])) for column in truth.T])
