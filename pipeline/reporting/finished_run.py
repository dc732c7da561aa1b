"""What a finished run left behind, read and checked."""

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
from pipeline.evaluation import result_files
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
)

TEXT = dict.fromkeys(("id", "id_a", "id_b", "target_a", "target_b"), "str")
"""Columns that are text, whatever they look like."""


@dataclass(frozen=True)
class FinishedRun:
    """A finished run.

    Attributes:
        params: the parameters.
        metrics: the content of metrics.json.
        audit: the content of data/folds-audit.json.
        indexes: what is known of each image, by source.
        images: (N, S, S, 4) uint8, by source.
        folds: the training samples, a row each.
        duplicates: pairs of samples that show one field of view, the most doubtful first.
        held_out: probabilities and decisions on them, in the same order.
        tables: the content of tables/, by name.
        maps: attention maps of the examples by the model that scores best alone.
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

    @cached_property
    def truth(self) -> npt.NDArray[np.bool_]:
        """The labels of the training samples, (N, 28)."""
        return target_matrix(self.folds["target"])

    @cached_property
    def positions(self) -> dict[str, int]:
        """The row of each training sample in ``folds`` and ``held_out``, by its id."""
        return {name: position for position, name in enumerate(self.folds["id"])}

    @property
    def best_model(self) -> str:
        """The model that scores best alone."""
        return best_model(self.metrics)

    def sample(self, position: int) -> ShownSample:
        """A training sample by its row in ``folds``."""
        row = self.folds.iloc[position]
        return ShownSample(row["source"], int(row["row"]), row["id"])


def read_finished_run(params: Params) -> FinishedRun:
    """Read all that a page needs.

    Raises:
        InputError: a file is missing or damaged; the message says what to run.
    """
    sources = params.data.sources
    metrics = _read_json(paths.METRICS)
    return FinishedRun(
        params=params,
        metrics=metrics,
        audit=_read_json(paths.FOLDS_AUDIT),
        indexes={source: read_index(source) for source in sources},
        images={source: open_images(source) for source in sources},
        folds=read_folds(),
        duplicates=_read_table(paths.DUPLICATES, "folds"),
        held_out=result_files.load_blend(result_files.HELD_OUT),
        tables={name: _read_table(paths.TABLES / f"{name}.csv", "score") for name in TABLES},
        maps=result_files.load_maps(best_model(metrics)),
    )


def best_model(metrics: dict[str, Any]) -> str:
    """The model with the highest macro-F1 of its own."""
    scores: dict[str, float] = metrics["models"]
    return max(scores, key=scores.__getitem__)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError) as error:
        raise InputError(f"{path} is missing or damaged ({error}): run dvc repro") from None
    return content


def _read_table(path: Path, stage: str) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype=TEXT)
    except (FileNotFoundError, ValueError) as error:
        raise InputError(f"{path} is missing or damaged ({error}): run the {stage} stage again") from None
