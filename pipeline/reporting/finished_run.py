"""Reading the outputs of a finished run, for the report."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.core import paths
from pipeline.core.errors import InputError
from pipeline.core.labels import target_matrix
from pipeline.core.params import Params
from pipeline.data.fold_table import read_folds
from pipeline.evaluation import leaderboard, result_files
from pipeline.evaluation.reference_file import REMEDY, Reference, load_reference
from pipeline.evaluation.result_files import AttentionMaps, Blend
from pipeline.reporting.blocks import ShownSample
from pipeline.sources.packed_array import open_images, read_index

TABLES = (
    "folds",
    "labels",
    "policies",
    "blends",
    "calibrations",
    "blend",
    "history",
    "examples",
    "pr_curves",
    "calibration",
    "confusions",
    "label-issues",
)
"""Tables of the score stage that the report needs."""

TEXT = dict.fromkeys(("id", "id_a", "id_b", "target_a", "target_b"), "str")
"""Columns to read as text even if they look like numbers."""


@dataclass(frozen=True)
class FinishedRun:
    """The outputs of a finished run.

    Attributes:
        params: the parameters.
        metrics: the content of metrics.json.
        audit: the content of data/folds-audit.json.
        indexes: the index of packed images, by source.
        images: (N, S, S, 4) uint8, by source.
        folds: the training samples, a row each.
        duplicates: pairs of samples that show the same field of view, those with contradicting labels first.
        held_out: out-of-fold probabilities and decisions, in the order of ``folds``.
        tables: the content of tables/, by name.
        maps: attention maps of the examples, from the best single model.
        reference: the training samples as one model sees them, in the order of ``folds``.
        pretraining: the learning curve of each model that was pre-trained without labels, by name; mostly none.
        submissions: Kaggle's scores of what was handed in, oldest first; mostly none.
    """

    params: Params
    metrics: dict[str, Any]
    audit: dict[str, Any]
    indexes: dict[str, pd.DataFrame]
    images: dict[str, npt.NDArray[np.uint8]]
    folds: pd.DataFrame
    duplicates: pd.DataFrame
    held_out: Blend
    tables: dict[str, pd.DataFrame]
    maps: AttentionMaps
    reference: Reference
    pretraining: dict[str, pd.DataFrame]
    submissions: pd.DataFrame

    @cached_property
    def truth(self) -> npt.NDArray[np.bool_]:
        """The true labels of the training samples, (N, 28)."""
        return target_matrix(self.folds["target"])

    @cached_property
    def positions(self) -> dict[str, int]:
        """The row of each training sample in ``folds`` and ``held_out``, by its id."""
        return {name: position for position, name in enumerate(self.folds["id"])}

    @property
    def best_model(self) -> str:
        """The best single model."""
        return best_model(self.metrics)

    def sample(self, position: int) -> ShownSample:
        """The training sample at a row of ``folds``."""
        row = self.folds.iloc[position]
        return ShownSample(row["source"], int(row["row"]), row["id"])


def read_finished_run(params: Params) -> FinishedRun:
    """Read everything that the report needs.

    Raises:
        InputError: a file is missing or damaged; the message says which stage to run.
    """
    sources = params.data.sources
    metrics, folds = _read_json(paths.METRICS), read_folds()
    return FinishedRun(
        params=params,
        metrics=metrics,
        audit=_read_json(paths.FOLDS_AUDIT),
        indexes={source: read_index(source) for source in sources},
        images={source: open_images(source) for source in sources},
        folds=folds,
        duplicates=_read_table(paths.DUPLICATES, "folds"),
        held_out=result_files.load_blend(result_files.HELD_OUT),
        tables={name: _read_table(paths.TABLES / f"{name}.csv", "score") for name in TABLES},
        maps=result_files.load_maps(best_model(metrics)),
        reference=_read_reference(folds),
        pretraining={name: _read_table(paths.pretraining_history(name), "pretrain") for name in params.pretrain.models},
        submissions=leaderboard.read_scores(),
    )


def best_model(metrics: dict[str, Any]) -> str:
    """The single model with the highest macro-F1."""
    scores: dict[str, float] = metrics["models"]
    return max(scores, key=scores.__getitem__)


def _read_reference(folds: pd.DataFrame) -> Reference:
    reference = load_reference(paths.REFERENCE)
    if not np.array_equal(reference.ids, folds["id"]):
        raise InputError(f"{paths.REFERENCE}: its samples are not those of {paths.FOLDS}: {REMEDY}")
    return reference


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError) as error:
        raise InputError(f"{path} is missing or damaged ({error}): run dvc repro") from None
    return content


def _read_table(path: Path, stage: str) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype=TEXT, keep_default_na=False, na_values=[""])  # an id may be "NA"
    except (FileNotFoundError, ValueError) as error:
        raise InputError(f"{path} is missing or damaged ({error}): run the {stage} stage again") from None
