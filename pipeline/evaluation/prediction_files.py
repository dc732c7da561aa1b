"""The file of predictions that each job (a model and a fold) writes, and reading and writing of checked npz files."""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.core.errors import InputError
from pipeline.core.labels import LABELS
from pipeline.core.paths import replacing

PREDICTION_KINDS = {"held_out_ids": "U", "held_out": "f", "test_ids": "U", "test": "f"}
"""The arrays of the file, with their numpy kinds."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Predictions:
    """Probabilities predicted by one model that was trained without one fold.

    Attributes:
        held_out_ids: (n,) str, the samples of the held-out fold.
        held_out: (n, 28) float32, their probabilities.
        test_ids: (m,) str, the test samples.
        test: (m, 28) float32, their probabilities.
    """

    held_out_ids: npt.NDArray[np.str_]
    held_out: npt.NDArray[np.float32]
    test_ids: npt.NDArray[np.str_]
    test: npt.NDArray[np.float32]

    def save(self, path: Path) -> None:
        """Write an npz file; the same predictions give the same bytes."""
        write_arrays(path, {name: getattr(self, name) for name in PREDICTION_KINDS})


def load_predictions(path: Path) -> Predictions:
    """Read what `Predictions.save` wrote.

    Raises:
        InputError: the file is missing or damaged, or does not contain one probability per id and label.
    """
    remedy = "run the tta stage of this model and fold again"
    predictions = Predictions(**read_arrays(path, PREDICTION_KINDS, remedy))
    check_probabilities(path, predictions.held_out_ids, predictions.held_out, remedy)
    check_probabilities(path, predictions.test_ids, predictions.test, remedy)
    return predictions


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write an uncompressed npz file; the same arrays give the same bytes."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def read_arrays(path: Path, kinds: Mapping[str, str], remedy: str) -> dict[str, Array]:
    """Read and check the named arrays.

    Args:
        path: an npz file.
        kinds: the numpy kind each array must have, by name ("U", "f", "b").
        remedy: what the error message tells the user to do.

    Raises:
        InputError: the file is missing or damaged, or an array is missing or of another kind.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: np.asarray(archive[name]) for name in kinds}
    except FileNotFoundError:
        raise InputError(f"{path} is missing: {remedy}") from None
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}): {remedy}") from None
    for name, kind in kinds.items():
        if arrays[name].dtype.kind != kind:
            raise InputError(f"{path}: {name} has the type {arrays[name].dtype}: {remedy}")
    return arrays


def check_probabilities(path: Path, ids: Array, probabilities: Array, remedy: str) -> None:
    """Check that there is one probability per id and label.

    Raises:
        InputError: the shapes do not match, an id is repeated, or a value is not in 0..1.
    """
    if ids.ndim != 1 or probabilities.shape != (len(ids), len(LABELS)):
        raise InputError(f"{path}: ids of shape {ids.shape}, but probabilities {probabilities.shape}: {remedy}")
    if len(np.unique(ids)) < len(ids):
        raise InputError(f"{path}: an id is repeated: {remedy}")
    if not np.all((probabilities >= 0) & (probabilities <= 1)):
        raise InputError(f"{path}: a probability is not in 0..1: {remedy}")
