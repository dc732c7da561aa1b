"""Assign samples to cross-validation folds, without splitting groups and with balanced labels; audit the folds."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.core.errors import InputError
from pipeline.core.labels import LABELS

PAIRS_PER_ROUND = 20_000
TOLERANCE = 1e-9
"""Changes of the squared relative deviations that are smaller than this are rounding errors."""
UNASSIGNED = -1
"""The fold of test samples."""

Amounts = npt.NDArray[np.float64]
Positions = npt.NDArray[np.int64]


def assign_folds(truth: npt.NDArray[np.bool_], groups: npt.NDArray[np.str_], folds: int, seed: int) -> Positions:
    """Assign each sample to a fold so that no group is split and every label is spread evenly.

    Iterative stratification (Sechidis et al., "On the Stratification of Multi-Label Data", ECML PKDD 2011) of groups
    instead of samples, followed by swaps of groups between folds that improve the balance of the labels. The result
    depends on the set of samples and the seed, not on the order of the rows.

    Args:
        truth: (N, 28) bool.
        groups: (N,) str, the group of each sample.
        folds: number of folds, at least 2.
        seed: breaks ties.

    Returns:
        (N,) int64, 0 .. folds - 1.

    Raises:
        InputError: there are fewer groups than folds.
    """
    names, membership = np.unique(groups, return_inverse=True)
    if len(names) < folds:
        raise InputError(f"{folds} folds but only {len(names)} groups of samples: use fewer folds in folds.ids")
    # The number of samples is balanced like a label's positives.
    amounts = np.zeros((len(names), truth.shape[1] + 1))
    np.add.at(amounts, membership, np.column_stack([truth, np.ones(len(truth), dtype=np.bool_)]))
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(len(names))
    assigned = np.empty(len(names), dtype=np.int64)
    assigned[shuffled] = exchange(amounts[shuffled], stratify(amounts[shuffled], folds), generator)
    return assigned[membership]


def stratify(amounts: Amounts, folds: int) -> Positions:
    """Iterative stratification: assign the groups of the rarest label first, each to the fold that lacks most of it.

    Args:
        amounts: (G, L), positives of each label in each group; the last column is the number of samples.
        folds: number of folds.

    Returns:
        (G,) the fold of each group.
    """
    assigned = np.full(len(amounts), -1)
    lack = np.repeat(amounts.sum(axis=0)[None] / folds, folds, axis=0)
    while (free := assigned < 0).any():
        groups_left = (amounts[free] > 0).sum(axis=0)
        label = np.where(groups_left > 0, groups_left, np.inf).argmin()
        members = np.flatnonzero(free & (amounts[:, label] > 0))
        # Large groups first; small ones can then fill the gaps.
        for group in members[np.argsort(-amounts[members, label], kind="stable")]:
            neediest = lack[:, label] == lack[:, label].max()
            fold = np.where(neediest, lack[:, -1], -np.inf).argmax()
            assigned[group] = fold
            lack[fold] -= amounts[group]
    return assigned


def exchange(amounts: Amounts, assigned: Positions, generator: np.random.Generator) -> Positions:
    """Swap groups between folds as long as this lowers the squared relative deviations from even folds.

    Rounds of random pairs are tried until a round contains no improvement. Empty groups are added, so that a group
    can also be moved, by swapping it with an empty one.

    Args:
        amounts: (G, L) as for `stratify`.
        assigned: (G,) the fold of each group; no fold is empty.
        generator: draws the pairs.

    Returns:
        (G,) the fold of each group.
    """
    groups, folds = len(amounts), int(assigned.max()) + 1
    total = amounts.sum(axis=0)
    weights = np.divide(folds**2, total**2, out=np.zeros_like(total), where=total > 0)
    in_fold = np.zeros((folds, len(total)))
    np.add.at(in_fold, assigned, amounts)
    amounts = np.vstack([amounts, np.zeros_like(amounts)])
    assigned = np.concatenate([assigned, np.arange(groups) % folds])
    improved = True
    while improved:
        improved = False
        first, second = generator.integers((groups, 2 * groups), size=(PAIRS_PER_ROUND, 2)).T
        moved = amounts[first] - amounts[second]
        surplus = in_fold[assigned[first]] - in_fold[assigned[second]]
        # Half the change of the sum over both folds of weights * (in_fold - even)**2.
        change = np.einsum("nl,nl,l->n", moved, moved - surplus, weights)
        promising = np.flatnonzero((change < -TOLERANCE) & (assigned[first] != assigned[second]))
        for pair in promising[np.argsort(change[promising], kind="stable")]:
            giver, taker = assigned[first[pair]], assigned[second[pair]]
            now = moved[pair] * weights @ (moved[pair] - in_fold[giver] + in_fold[taker])
            if giver == taker or now >= -TOLERANCE:
                continue  # no longer an improvement after an earlier swap of this round
            in_fold[giver] -= moved[pair]
            in_fold[taker] += moved[pair]
            assigned[first[pair]], assigned[second[pair]] = taker, giver
            improved = True
    return assigned[:groups]


def audit_folds(
    truth: npt.NDArray[np.bool_], groups: npt.NDArray[np.str_], folds: npt.NDArray[np.int64]
) -> dict[str, Any]:
    """Samples, groups and positives of each fold, and how balanced they are.

    Args:
        truth: (N, 28) bool.
        groups: (N,) str, the group of each sample.
        folds: (N,), the fold of each sample.

    Returns:
        A summary that can be written as JSON. For each label, the largest relative deviation of a fold's positives
        from their mean over folds is computed; ``imbalance`` is the worst and the mean of these over labels with at
        least as many groups as folds.
    """
    ids = np.unique(folds).tolist()
    positives = np.array([truth[folds == fold].sum(axis=0) for fold in ids])
    groups_with = np.array([groups_by_label(truth[folds == fold], groups[folds == fold]) for fold in ids])
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
            name: {"positives": positives[:, label].tolist(), "groups": groups_with[:, label].tolist()}
            for label, name in enumerate(LABELS)
        },
    }


def duplicates_audit(
    duplicates: pd.DataFrame, pairs: npt.NDArray[np.int64], folds: npt.NDArray[np.int64]
) -> dict[str, Any]:
    """Count duplicates, and training samples that have a duplicate in another fold.

    Args:
        duplicates: the result of `find_duplicates`.
        pairs: (P, 2), positions of the duplicates among all samples.
        folds: (N,), the fold of every sample, ``UNASSIGNED`` for test samples.

    Returns:
        A summary that can be written as JSON.
    """
    first, second = folds[pairs].T
    split = pairs[(first != second) & (first != UNASSIGNED) & (second != UNASSIGNED)]
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


def check_leaks(audit: Mapping[str, Any]) -> None:
    """Check that no group and no pair of duplicates is split between folds.

    Raises:
        RuntimeError: one is split, which is a bug in this program.
    """
    for kind in ("group", "duplicate"):
        if share := audit[f"held_out_share_with_{kind}_in_training"]:
            raise RuntimeError(f"the folds leak: {share:.2%} of the held-out samples have their {kind} in training")


def leaked_share(groups: npt.NDArray[np.str_], folds: npt.NDArray[np.int64]) -> float:
    """Share of samples whose group also has samples in another fold.

    When such a sample is held out, its group is in the training set, and its score measures memorisation.
    """
    table = pd.DataFrame({"group": groups, "fold": folds})
    return float((table.groupby("group")["fold"].transform("nunique") > 1).mean())


def groups_by_label(truth: npt.NDArray[np.bool_], groups: npt.NDArray[np.str_]) -> npt.NDArray[np.int64]:
    """Number of groups with each label, (28,), from truth (N, 28) and groups (N,)."""
    return np.array([len(np.unique(groups[column])) for column in truth.T])
