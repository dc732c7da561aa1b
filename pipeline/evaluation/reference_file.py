"""The file ``reference.npz``: the training samples as one fold model sees them, to compare other samples with."""

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.core import paths
from pipeline.core.errors import InputError
from pipeline.evaluation.prediction_files import read_arrays, write_arrays

REMEDY = "run the reference stage again (python -m pipeline.stages.reference)"

KINDS = {
    "model": "U",
    "fold": "i",
    "weights": "U",
    "ids": "U",
    "targets": "U",
    "folds": "i",
    "vectors": "f",
    "statistics": "f",
    "places": "f",
}


@dataclass(frozen=True)
class Reference:
    """The training samples as one fold model sees them: the file ``reference.npz``.

    Attributes:
        model: name of the model.
        fold: the fold that it was trained without.
        weights: digest of its weight file.
        ids: (N,) str.
        targets: (N,) str, the labels as in the index, for example "16 0".
        folds: (N,) int64; samples of ``fold`` are held out.
        vectors: (N, D) float32, embeddings by ``inference.embedding``.
        statistics: (N, F) float64, of ``inference.channel_statistics``.
        places: (N, 2) float32, positions on a map of the embeddings; NaN for samples that it leaves out.
    """

    model: str
    fold: int
    weights: str
    ids: npt.NDArray[np.str_]
    targets: npt.NDArray[np.str_]
    folds: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float32]
    statistics: npt.NDArray[np.float64]
    places: npt.NDArray[np.float32]

    @property
    def held_out(self) -> npt.NDArray[np.bool_]:
        """(N,), which samples the model was not trained on."""
        return np.asarray(self.folds == self.fold)

    def is_of(self, path: Path) -> bool:
        """Whether a weight file is the one that the embeddings were made with."""
        return digest(path) == self.weights

    def save(self, path: Path) -> None:
        """Write an npz file; the same reference gives the same bytes."""
        write_arrays(path, {name: np.asarray(getattr(self, name)) for name in KINDS})


def digest(path: Path) -> str:
    """A digest of a weight file."""
    return blake2b(path.read_bytes(), digest_size=16).hexdigest()


def load_reference(path: Path) -> Reference:
    """Read what `Reference.save` wrote.

    Raises:
        InputError: the file is missing, damaged, or its arrays do not fit together.
    """
    arrays = read_arrays(path, KINDS, REMEDY)
    samples = len(np.atleast_1d(arrays["ids"]))
    matrices = [len(arrays[name]) for name in ("vectors", "statistics", "places") if arrays[name].ndim == 2]
    lists = [len(arrays[name]) for name in ("ids", "targets", "folds") if arrays[name].ndim == 1]
    if matrices + lists != [samples] * 6:
        raise InputError(f"{path}: its arrays do not fit together: {REMEDY}")
    model, fold, weights = (arrays.pop(name) for name in ("model", "fold", "weights"))
    return Reference(str(model), int(fold), str(weights), **arrays)


def stored_reference(run: Path) -> Reference | None:
    """The reference of the run in a folder; None if it has none.

    Raises:
        InputError: see `load_reference`.
    """
    path = run / paths.REFERENCE
    return load_reference(path) if path.exists() else None
