"""Read data/folds.csv. Separate from the assignment of folds, so that its code changes do not rerun the training."""

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.core import paths
from pipeline.core.errors import InputError

COLUMNS: dict[str, type] = {"id": str, "source": str, "row": np.int64, "target": str, "group": str, "fold": np.int64}
"""The columns of folds.csv, one row per training sample; ``row`` is the row in the packed array of its source."""


def read_folds(path: Path = paths.FOLDS) -> pd.DataFrame:
    """Read the training samples and their folds, with the columns ``COLUMNS``.

    Raises:
        InputError: the file is missing or damaged.
    """
    remedy = "run the folds stage again (python -m pipeline.stages.folds)"
    try:
        folds = pd.read_csv(path, dtype=COLUMNS, keep_default_na=False, na_values={})
    except FileNotFoundError:
        raise InputError(f"{path} is missing: {remedy}") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is damaged ({error}): {remedy}") from None
    if list(folds.columns) != list(COLUMNS):
        raise InputError(f"{path} is damaged (its columns are not {', '.join(COLUMNS)}): {remedy}")
    return folds
