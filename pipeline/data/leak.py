"""Test samples that a further source shows too, with labels: the leak of a competition whose images are public."""

from pathlib import Path

import pandas as pd

from pipeline.core import paths
from pipeline.core.errors import InputError
from pipeline.data.duplicates import COLUMNS as PAIR_COLUMNS
from pipeline.data.duplicates import SAMPLE_COLUMNS

COLUMNS = ["test_id", "source", "id", "target", "distance"]
"""The columns of tables/test-leak.csv: a test sample, and a labelled sample of a further source that shows the same
field of view. ``distance`` is the number of bits in which their perceptual hashes differ, 0 for identical files."""


def read_duplicates(path: Path = paths.DUPLICATES) -> pd.DataFrame:
    """Read the pairs of samples that show one field of view, as `duplicates.find_duplicates` returned them.

    Raises:
        InputError: the file is missing or damaged.
    """
    remedy = "run the folds stage again (python -m pipeline.stages.folds)"
    try:
        pairs = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise InputError(f"{path} is missing: {remedy}") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is damaged ({error}): {remedy}") from None
    if list(pairs.columns) != PAIR_COLUMNS or not pairs["distance"].str.isdigit().all():
        raise InputError(f"{path} is damaged (its columns are not {', '.join(PAIR_COLUMNS)}): {remedy}")
    return pairs.astype({"distance": int})


def find_leak(pairs: pd.DataFrame, first: str) -> pd.DataFrame:
    """List the labelled samples of further sources that show the field of view of a test sample.

    Args:
        pairs: as `duplicates.find_duplicates` returns them. Of n copies of the same files, each is paired with the
            first one alone, and near-duplicates are pairs of such first ones; here, all copies are listed.
        first: the source that has the test set.

    Returns:
        A frame with ``COLUMNS``, by test sample, the nearest one first.
    """
    sides = [pairs[[f"{column}_{side}" for column in SAMPLE_COLUMNS]].set_axis(SAMPLE_COLUMNS, axis=1) for side in "ab"]
    samples = pd.concat(sides).drop_duplicates("id")  # an id is in one source alone, or the stage folds fails
    exact = pairs["kind"] == "exact"
    originals = dict(zip(pairs.loc[exact, "id_b"], pairs.loc[exact, "id_a"], strict=True))
    samples["files"] = samples["id"].map(lambda id_: originals.get(id_, id_))
    near = pairs.loc[~exact, ["id_a", "id_b", "distance"]]
    itself = samples["files"].drop_duplicates()
    links = pd.concat(
        [near, near.rename(columns={"id_a": "id_b", "id_b": "id_a"}), pd.DataFrame({"id_a": itself, "id_b": itself})]
    ).fillna({"distance": 0})
    tests = samples[(samples["source"] == first) & (samples["split"] == "test")]
    labelled = samples[(samples["source"] != first) & (samples["split"] == "train")]
    found = tests[["id", "files"]].merge(links, left_on="files", right_on="id_a").rename(columns={"id": "test_id"})
    found = found[["test_id", "id_b", "distance"]].merge(labelled, left_on="id_b", right_on="files")
    found["distance"] = found["distance"].astype(int)
    return found.sort_values(["test_id", "distance", "source", "id"])[COLUMNS].reset_index(drop=True)
