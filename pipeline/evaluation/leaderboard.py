"""Kaggle's scores of submissions, beside the cross-validated ones: submissions/kaggle-scores.csv."""

import pandas as pd

from pipeline.core import paths
from pipeline.core.errors import InputError
from pipeline.core.paths import replacing

COLUMNS = (
    "submission",
    "time",
    "commit",
    "message",
    "macro_f1",
    "macro_f1_low",
    "macro_f1_high",
    "samples",
    "public",
    "private",
)
"""Kaggle's number of the submission; when it was handed in (UTC); the run's cross-validated score, its interval and
number of samples; Kaggle's scores, empty where Kaggle does not show them."""


def read_scores() -> pd.DataFrame:
    """The table, a row per submission, oldest first; empty if nothing was handed in.

    Raises:
        InputError: the file is something else.
    """
    path = paths.KAGGLE_SCORES
    if not path.exists():
        return pd.DataFrame(columns=list(COLUMNS))
    try:
        return pd.read_csv(path, dtype={"commit": str, "message": str})[list(COLUMNS)]
    except (ValueError, KeyError) as error:
        raise InputError(f"{path} is damaged ({error}): correct it, or move it away") from None


def add_scores(row: dict[str, str | int | float | None]) -> None:
    """Add a row, in place of the one of the same submission if there is one."""
    table = read_scores()
    others = table[table["submission"] != row["submission"]]
    new = pd.DataFrame([row], columns=list(COLUMNS))
    with replacing(paths.KAGGLE_SCORES) as temporary:
        (pd.concat([others, new]) if len(others) else new).to_csv(temporary, index=False, lineterminator="\n")
