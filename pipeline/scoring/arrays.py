"""Arrays in an npz file, written whole and checked when read."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError
from pipeline.files import replacing
from pipeline.labels import LABELS

Array = npt.NDArray[Any]


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write an uncompressed npz file; the same arrays give the same bytes."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def read_arrays(path: Path, kinds: Mapping[str, str], remedy: str) -> dict[str, Array]:
    """Read the named arrays.

    Args:
        path: an npz file.
        kinds: the numpy kind each array must have, by name ("U", "f", "b").
        remedy: what to do when the file is no good, for the message.

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
            raise InputError(f"{path}: {name} holds {arrays[name].dtype}: {remedy}")
    return arrays


def check_probabilities(path: Path, ids: Array, probabilities: Array, remedy: str) -> None:
    """Make sure that there is one probability per id and label.

    Raises:
        InputError: the shapes do not fit, an id repeats, or a value is not in 0..1.
    """
    if ids.ndim != 1 or probabilities.shape != (len(ids), len(LABELS)):
        raise InputError(f"{path}: ids of shape {ids.shape}, but probabilities {probabilities.shape}: {remedy}")
    if len(np.unique(ids)) < len(ids):
        raise InputError(f"{path}: an id repeats: {remedy}")
    if not np.all((probabilities >= 0) & (probabilities <= 1)):
        raise InputError(f"{path}: a probability is not in 0..1: {remedy}")
