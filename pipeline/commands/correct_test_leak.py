"""A second submission that uses the test leak: ``python -m pipeline correct-test-leak``.

Reads submission.csv and tables/test-leak.csv; writes submission-leak-corrected.csv, in which a test sample that a
further source shows too has the labels of that source. Nothing else reads the file, and no score is computed from it.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pipeline.core import paths
from pipeline.core.errors import InputError
from pipeline.core.labels import target_matrix
from pipeline.core.paths import replacing
from pipeline.data.leak import COLUMNS

REMEDY = "run dvc repro"


def correct(submission: pd.DataFrame, leak: pd.DataFrame) -> tuple[pd.DataFrame, int, int]:
    """Replace the labels of test samples by those of the nearest sample that shows the same field of view.

    Args:
        submission: ``Id`` and ``Predicted``.
        leak: with the columns of ``pipeline.data.leak``.

    Returns:
        The corrected submission, how many samples have labels of another source, and how many are left as they were
        because the nearest samples disagree.

    Raises:
        InputError: a listed sample is not in the submission.
    """
    nearest = leak[leak["distance"] == leak.groupby("test_id")["distance"].transform("min")]
    targets = nearest.groupby("test_id")["target"].agg(["first", "nunique"])
    if unknown := sorted(set(targets.index) - set(submission["Id"])):
        raise InputError(
            f"{paths.TEST_LEAK} lists samples that are not in {paths.SUBMISSION}, such as {unknown[0]}: {REMEDY}"
        )
    agreed = targets.loc[targets["nunique"] == 1, "first"].to_dict()
    rows = zip(submission["Id"], submission["Predicted"], strict=True)
    predicted = [agreed.get(id_, labels) for id_, labels in rows]
    return submission.assign(Predicted=predicted), len(agreed), len(targets) - len(agreed)


def read(path: Path, columns: list[str]) -> pd.DataFrame:
    """Read a table of this run as text.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise InputError(f"{path} is missing: {REMEDY}") from None
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}): {REMEDY}") from None
    if list(table.columns) != columns:
        raise InputError(f"{path} is damaged (its columns are not {', '.join(columns)}): {REMEDY}")
    return table


def read_leak() -> pd.DataFrame:
    """Read tables/test-leak.csv.

    Raises:
        InputError: the file is missing or damaged.
    """
    leak = read(paths.TEST_LEAK, COLUMNS)
    try:
        target_matrix(leak["target"])
        return leak.astype({"distance": int})
    except ValueError as error:
        raise InputError(f"{paths.TEST_LEAK} is damaged ({error}): {REMEDY}") from None


def main(arguments: Sequence[str]) -> None:
    """Write the corrected submission."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline correct-test-leak",
        description=f"Write {paths.LEAK_CORRECTED}: {paths.SUBMISSION} with the labels of another source for each test "
        f"sample of {paths.TEST_LEAK}. It uses a leak of the competition, and says nothing about the models: no score "
        "of this project is computed from it.",
    )
    parser.add_argument(
        "--bits",
        type=int,
        help="use only samples whose perceptual hashes differ in at most this many of 256 bits; 0 is the same files or "
        "the same hash (default: all that are listed)",
    )
    parsed = parser.parse_args(arguments)
    leak = read_leak()
    if parsed.bits is not None:
        leak = leak[leak["distance"] <= parsed.bits]
    if leak.empty:
        raise InputError(
            f"{paths.TEST_LEAK} lists no test sample{'' if parsed.bits is None else f' within {parsed.bits} bits'}: "
            "there is nothing to correct, and nothing was written"
        )
    submission = read(paths.SUBMISSION, ["Id", "Predicted"])
    corrected, replaced, disputed = correct(submission, leak)
    with replacing(paths.LEAK_CORRECTED) as temporary:
        corrected.to_csv(temporary, index=False)
    left = f"; {disputed:,} more are left, because such labels disagree" if disputed else ""
    print(
        f"{paths.LEAK_CORRECTED}: {replaced:,} of {len(corrected):,} test samples have the labels that another source "
        f"gives to the same field of view{left}. This uses a leak of the competition: what it scores says nothing "
        "about other images."
    )
