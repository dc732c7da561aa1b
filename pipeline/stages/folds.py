"""Assign every training sample to a fold.

Reads data/packed/<source>/index.csv of all sources; writes data/folds.csv and data/folds-audit.json.
"""

import json
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline import paths
from pipeline.atlas.audit import audit_folds, groups_by_label, leaked_share
from pipeline.atlas.folds import COLUMNS, assign_folds
from pipeline.atlas.packed import read_index
from pipeline.errors import InputError, run_stage
from pipeline.files import replacing
from pipeline.labels import LABELS, target_matrix
from pipeline.params import load


def training_samples(sources: Sequence[str]) -> pd.DataFrame:
    """The training samples of all sources: id, source, row, target and group, which is the id where unknown.

    Raises:
        InputError: two sources share an id.
    """
    samples = pd.concat([read_index(source).assign(source=source) for source in sources], ignore_index=True)
    samples = samples.loc[samples["split"] == "train", ["id", "source", "row", "target", "group"]]
    repeated = samples.loc[samples["id"].duplicated(), "id"].tolist()
    if repeated:
        raise InputError(
            f"data.sources: {len(repeated)} ids are in more than one source, such as {repeated[0]}: "
            "leave out one of the sources or remove its copies"
        )
    return samples.assign(group=samples["group"].where(samples["group"] != "", samples["id"]))


def report_scarce_labels(groups: npt.NDArray[np.int64], folds: int) -> None:
    """Say which labels have no sample, (28,) groups each, or too few groups for one in every fold."""
    if absent := int((groups == 0).sum()):
        print(f"no training sample has {absent} of the {len(LABELS)} labels: their F1 counts 0")
    scarce = [f"{LABELS[label]} ({groups[label]})" for label in np.flatnonzero((groups > 0) & (groups < folds))]
    if scarce:
        print(f"too few groups for {folds} folds, so that some fold's F1 is 0: {', '.join(scarce)}")


def main() -> None:
    """Run the stage."""
    params = load()
    samples = training_samples(params.data.sources)
    truth = target_matrix(samples["target"])
    groups = samples["group"].to_numpy(dtype=np.str_)
    positions = assign_folds(truth, groups, len(params.folds.ids), params.folds.seed)
    folds = np.array(params.folds.ids)[positions]
    if leaked := leaked_share(groups, folds):
        raise RuntimeError(f"{leaked:.2%} of the samples have their group in two folds")
    audit = audit_folds(truth, groups, folds)
    report_scarce_labels(groups_by_label(truth, groups), len(params.folds.ids))
    with replacing(paths.FOLDS) as temporary:
        samples.assign(fold=folds)[list(COLUMNS)].to_csv(temporary, index=False)
    with replacing(paths.FOLDS_AUDIT) as temporary:
        temporary.write_text(json.dumps(audit, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_stage(main)
