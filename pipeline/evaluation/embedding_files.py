"""Files of embeddings, for other programs. The only module that imports anndata and fastparquet, both optional."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.core.errors import InputError
from pipeline.core.optional_packages import check_installed

FORMATS: dict[str, str | None] = {".csv": None, ".npz": None, ".parquet": "fastparquet", ".h5ad": "anndata"}
"""Endings of the formats, and the optional packages that write them."""


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of samples.

    Attributes:
        ids: (N,) str.
        models: (N,) str, the model that made each vector.
        folds: (N,) int, the fold that it was trained without.
        vectors: (N, D) float32.
    """

    ids: npt.NDArray[np.str_]
    models: npt.NDArray[np.str_]
    folds: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float32]

    @classmethod
    def joined(cls, parts: Sequence["Embeddings"]) -> "Embeddings":
        """The samples of all parts, at least one."""
        names = ("ids", "models", "folds", "vectors")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def check_format(path: Path) -> None:
    """Check before the work that the file can be written.

    Raises:
        InputError: the ending is unknown, the package for it is not installed, or the path is a folder or a file of
            something else.
    """
    if path.suffix not in FORMATS:
        raise InputError(f"--out {path}: choose one of the endings {', '.join(FORMATS)}")
    package = FORMATS[path.suffix]
    if package is not None:
        check_installed(f"--out {path}", (package,), "requirements-embeddings.txt")
    if path.is_dir():
        raise InputError(f"--out {path} is a folder: name a file")
    if path.exists() and path.stat().st_size and not _has_embeddings(path):
        raise InputError(f"--out {path} exists and is not a file of embeddings: name another one, or move it away")


def write_embeddings(path: Path, found: Embeddings, ending: str) -> None:
    """Write embeddings in the format of an ending, one of ``FORMATS``, whatever the path is called."""
    about = {"id": found.ids, "model": found.models, "fold": found.folds}
    if ending == ".npz":
        with path.open("wb") as file:
            arrays = {f"{name}s": array for name, array in about.items()} | {"vectors": found.vectors}
            np.savez(file, allow_pickle=False, **arrays)
    elif ending == ".h5ad":
        _annotated(about, found.vectors).write_h5ad(path)
    else:
        table = pd.concat([pd.DataFrame(about), pd.DataFrame(found.vectors, columns=_names(found.vectors))], axis=1)
        if ending == ".csv":
            table.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
        else:
            _write_parquet(path, table)


def _has_embeddings(path: Path) -> bool:
    """Whether a file was written by ``write_embeddings``, so that another run may replace it."""
    columns = ["id", "model", "fold", "v0"]
    try:
        if path.suffix == ".csv":
            found = pd.read_csv(path, nrows=0).columns.tolist()
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                return set(arrays) == {"ids", "models", "folds", "vectors"}
        elif path.suffix == ".h5ad":
            return _observed(path) == ["model", "fold"]
        else:
            found = _parquet_columns(path)
    except Exception:
        return False
    return found[: len(columns)] == columns


def _names(vectors: npt.NDArray[np.float32]) -> list[str]:
    return [f"v{number}" for number in range(vectors.shape[1])]


def _annotated(about: dict[str, npt.NDArray[Any]], vectors: npt.NDArray[np.float32]) -> Any:
    import anndata

    # Text as objects, which all versions of anndata can read; pandas' own type of text they cannot.
    observed = pd.DataFrame({name: about[name] for name in ("model", "fold")}).astype({"model": object})
    observed.index = pd.Index(about["id"], dtype=object)
    components = pd.DataFrame(index=pd.Index(_names(vectors), dtype=object))
    return anndata.AnnData(X=vectors, obs=observed, var=components)


def _write_parquet(path: Path, table: pd.DataFrame) -> None:
    import fastparquet

    fastparquet.write(str(path), table)


def _observed(path: Path) -> list[str]:
    import anndata

    return list(anndata.read_h5ad(path).obs.columns)


def _parquet_columns(path: Path) -> list[str]:
    import fastparquet

    return list(fastparquet.ParquetFile(str(path)).columns)
