"""Assign every training sample to a fold.

Reads data/packed/index/<source>.csv of all sources; writes data/folds.csv, data/duplicates.csv (pairs of samples that
show the same field of view, for manual inspection) and data/folds-audit.json.
"""

import json
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.core import paths
from pipeline.core.entry import run_main
from pipeline.core.errors import InputError
from pipeline.core.labels import LABELS, target_matrix
from pipeline.core.params import load
from pipeline.core.paths import replacing
from pipeline.data.duplicates import antibody_pairs, check_chains, find_duplicates, join_groups
from pipeline.data.fold_assignment import (
    UNASSIGNED,
    assign_folds,
    audit_folds,
    check_leaks,
    duplicates_audit,
    groups_by_label,
)
from pipeline.data.fold_table import COLUMNS
from pipeline.sources.packed_array import read_index


def all_samples(sources: Sequence[str]) -> pd.DataFrame:
    """Concatenate the indexes of all sources, adding ``source``; an unknown group becomes the sample's id.

    Raises:
        InputError: an id is in two sources.
    """
    samples = pd.concat([read_index(source).assign(source=source) for source in sources], ignore_index=True)
    repeated = samples.loc[samples["id"].duplicated(), "id"].tolist()
    if repeated:
        raise InputError(
            f"data.sources: {len(repeated)} ids are in more than one source, such as {repeated[0]}: "
            "leave out one of the sources or remove its copies"
        )
    return samples.assign(group=samples["group"].where(samples["group"] != "", samples["id"]))


def report_duplicates(duplicates: pd.DataFrame) -> None:
    """Print how many pairs of samples show the same field of view."""
    if len(duplicates):
        crossing = int((duplicates["split_a"] != duplicates["split_b"]).sum())
        different = int((duplicates["labels"] == "different").sum())
        print(
            f"{len(duplicates):,} pairs of samples show the same field of view ({crossing:,} of a training and a test "
            f"sample, {different:,} with different labels): listed in {paths.DUPLICATES}, and kept in one fold"
        )


def report_scarce_labels(groups: npt.NDArray[np.int64], folds: int) -> None:
    """Print which labels have no sample, or fewer groups than folds.

    Args:
        groups: (28,), number of groups with each label.
        folds: number of folds.
    """
    if absent := int((groups == 0).sum()):
        print(f"{absent} of the {len(LABELS)} labels have no training sample: their F1 counts as 0")
    scarce = [f"{LABELS[label]} ({groups[label]})" for label in np.flatnonzero((groups > 0) & (groups < folds))]
    if scarce:
        print(f"too few groups for {folds} folds, so F1 is 0 in some fold: {', '.join(scarce)}")


def main() -> None:
    """Run the stage."""
    params = load()
    everything = all_samples(params.data.sources)
    duplicates = find_duplicates(everything, params.folds.near_duplicates)
    rows = pd.Index(everything["id"])
    pairs = np.column_stack([rows.get_indexer(duplicates[f"id_{side}"]) for side in "ab"])
    check_chains(pairs, len(everything), params.folds.near_duplicates)
    # Test samples are included: two training samples may be duplicates of the same test sample.
    named = everything["group"].to_numpy(dtype=np.str_)
    everything["group"] = join_groups(named, np.concatenate([pairs, antibody_pairs(named)]))
    training = (everything["split"] == "train").to_numpy()
    samples = everything[training]
    truth = target_matrix(samples["target"])
    groups = samples["group"].to_numpy(dtype=np.str_)
    folds = np.array(params.folds.ids)[assign_folds(truth, groups, len(params.folds.ids), params.folds.seed)]
    of_all = np.full(len(everything), UNASSIGNED)
    of_all[training] = folds
    audit = audit_folds(truth, groups, folds) | duplicates_audit(duplicates, pairs, of_all)
    check_leaks(audit)
    report_duplicates(duplicates)
    report_scarce_labels(groups_by_label(truth, groups), len(params.folds.ids))
    with replacing(paths.DUPLICATES) as temporary:
        duplicates.to_csv(temporary, index=False, lineterminator="\n")
    with replacing(paths.FOLDS) as temporary:
        samples.assign(fold=folds)[list(COLUMNS)].to_csv(temporary, index=False)
    with replacing(paths.FOLDS_AUDIT) as temporary:
        temporary.write_text(json.dumps(audit, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_main(main)
