"""Cross-validation folds: groups stay whole, and every label is spread evenly."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.core.errors import InputError
from pipeline.core.labels import LABELS

PAIRS_PER_ROUND = 20_000
TOLERANCE = 1e-9
"""The smallest change of the squared relative deviations that counts; below it lies rounding."""

Amounts = npt.NDArray[np.float64]
Positions = npt.NDArray[np.int64]


def assign_folds(truth: npt.NDArray[np.bool_], groups: npt.NDArray[np.str_], folds: int, seed: int) -> Positions:
    """Give each sample a fold so that no group is split and every label is spread evenly.

    Iterative stratification (Sechidis et al., "On the Stratification of Multi-Label Data", ECML PKDD 2011)
    with groups in place of samples, then swaps of groups between folds for as long as they even out the
    labels. The result depends on the set of samples and the seed, not on the order of the rows.

    Args:
        truth: (N, 28).
        groups: (N,) str, the group of each sample.
        folds: how many, at least 2.
        seed: settles the ties.

    Returns:
        (N,) int64, 0 .. folds - 1.

    Raises:
        InputError: there are fewer groups than folds.
    """
    names, membership = np.unique(groups, return_inverse=True)
    if len(names) < folds:
        raise InputError(f"{folds} folds but only {len(names)} groups of samples: name fewer in folds.ids")
    # The number of samples is balanced like a label's positives.
    amounts = np.zeros((len(names), truth.shape[1] + 1))
    np.add.at(amounts, membership, np.column_stack([truth, np.ones(len(truth), dtype=np.bool_)]))
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(len(names))
    assigned = np.empty(len(names), dtype=np.int64)
    assigned[shuffled] = exchange(amounts[shuffled], stratify(amounts[shuffled], folds), generator)
    return assigned[membership]


def stratify(amounts: Amounts, folds: int) -> Positions:
    """Iterative stratification: the rarest label first, each of its groups to the fold that lacks it most.

    Args:
        amounts: (G, L), positives of each label in each group; the last column is the group's samples.
        folds: how many.

    Returns:
        (G,) the fold of each group.
    """
    assigned = np.full(len(amounts), -1)
    lack = np.repeat(amounts.sum(axis=0)[None] / folds, folds, axis=0)
    while (free := assigned < 0).any():
        groups_left = (amounts[free] > 0).sum(axis=0)
        label = np.where(groups_left > 0, groups_left, np.inf).argmin()
        members = np.flatnonzero(free & (amounts[:, label] > 0))
        # Large groups first: the small ones then fill the gaps.
        for group in members[np.argsort(-amounts[members, label], kind="stable")]:
            neediest = lack[:, label] == lack[:, label].max()
            fold = np.where(neediest, lack[:, -1], -np.inf).argmax()
            assigned[group] = fold
            lack[fold] -= amounts[group]
    return assigned


def exchange(amounts: Amounts, assigned: Positions, generator: np.random.Generator) -> Positions:
    """Swap groups between folds while that lowers the squared relative deviations from an even spread.

    Pairs are drawn at random until a round of them holds no improvement. A swap with one of the empty
    groups added here is a move.

    Args:
        amounts: (G, L) as for `stratify`.
        assigned: (G,) the fold of each group, every fold at least once.
        generator: draws the pairs.

    Returns:
        (G,) the fold of each group.
    """
    groups, folds = len(amounts), int(assigned.max()) + 1
    total = amounts.sum(axis=0)
    weights = np.divide(folds**2, total**2, out=np.zeros_like(total), where=total > 0)
    held = np.zeros((folds, len(total)))
    np.add.at(held, assigned, amounts)
    amounts = np.vstack([amounts, np.zeros_like(amounts)])
    assigned = np.concatenate([assigned, np.arange(groups) % folds])
    improved = True
    while improved:
        improved = False
        ours, theirs = generator.integers((groups, 2 * groups), size=(PAIRS_PER_ROUND, 2)).T
        given = amounts[ours] - amounts[theirs]
        surplus = held[assigned[ours]] - held[assigned[theirs]]
        # Half the change of the sum over both folds of weights * (held - even)**2.
        change = np.einsum("nl,nl,l->n", given, given - surplus, weights)
        promising = np.flatnonzero((change < -TOLERANCE) & (assigned[ours] != assigned[theirs]))
        for pair in promising[np.argsort(change[promising], kind="stable")]:
            mine, yours = assigned[ours[pair]], assigned[theirs[pair]]
            now = given[pair] * weights @ (given[pair] - held[mine] + held[yours])
            if mine == yours or now >= -TOLERANCE:
                continue  # an earlier swap of this round made it worthless
            held[mine] -= given[pair]
            held[yours] += given[pair]
            assigned[ours[pair]], assigned[theirs[pair]] = yours, mine
            improved = True
    return assigned[:groups]


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


def check_leaks(audit: Mapping[str, Any]) -> None:
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
