"""Files of embeddings: what other programs read is what was written."""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.core.errors import InputError
from pipeline.evaluation.embedding_files import FORMATS, Embeddings, check_format, write_embeddings

FOUND = Embeddings(
    np.array(["b", "NA", "007"]),
    np.array(["one", "one", "two"]),
    np.array([0, 2, 1]),
    np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32),
)
COLUMNS = ["v0", "v1", "v2", "v3"]


def test_tables_have_a_row_per_sample(tmp_path: Path) -> None:
    fastparquet = pytest.importorskip("fastparquet")
    write_embeddings(tmp_path / "csv", FOUND, ".csv")
    write_embeddings(tmp_path / "parquet", FOUND, ".parquet")
    text = pd.read_csv(tmp_path / "csv", dtype={"id": str}, keep_default_na=False)
    with (tmp_path / "parquet").open("rb") as file:
        binary = fastparquet.ParquetFile(file).to_pandas()
    np.testing.assert_array_equal(binary[COLUMNS], FOUND.vectors)
    np.testing.assert_allclose(text[COLUMNS], FOUND.vectors, rtol=1e-5)
    for table in (text, binary):
        assert table.columns.tolist() == ["id", "model", "fold", *COLUMNS]
        assert table["id"].tolist() == FOUND.ids.tolist()
        assert table["model"].tolist() == FOUND.models.tolist()
        assert table["fold"].tolist() == FOUND.folds.tolist()


def test_arrays_keep_their_names_and_values(tmp_path: Path) -> None:
    write_embeddings(tmp_path / "x.partial", FOUND, ".npz")
    with np.load(tmp_path / "x.partial", allow_pickle=False) as arrays:
        assert set(arrays) == {"ids", "models", "folds", "vectors"}
        for name in arrays:
            np.testing.assert_array_equal(arrays[name], getattr(FOUND, name))


def test_single_cell_tools_get_samples_as_observations(tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata")
    write_embeddings(tmp_path / "x.h5ad", FOUND, ".h5ad")
    read = anndata.read_h5ad(tmp_path / "x.h5ad")
    np.testing.assert_array_equal(read.X, FOUND.vectors)
    assert read.obs_names.tolist() == FOUND.ids.tolist()
    assert read.var_names.tolist() == COLUMNS
    assert read.obs["model"].tolist() == FOUND.models.tolist()
    assert read.obs["fold"].tolist() == FOUND.folds.tolist()


def test_what_cannot_be_written_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"x\.npy: choose one of the endings \.csv, \.npz, \.parquet, \.h5ad"):
        check_format(tmp_path / "x.npy")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match=r"folder\.csv is a folder"):
        check_format(tmp_path / "folder.csv")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"\.h5ad needs anndata: pip install -r requirements-embeddings"):
        check_format(tmp_path / "x.h5ad")
    check_format(tmp_path / "x.csv")


def test_parts_are_joined_in_their_order() -> None:
    joined = Embeddings.joined([FOUND, FOUND])
    assert joined.ids.tolist() == FOUND.ids.tolist() * 2
    assert joined.vectors.shape == (6, 4)
    assert set(FORMATS) == {".csv", ".npz", ".parquet", ".h5ad"}


@pytest.mark.parametrize("ending", list(FORMATS))
def test_only_a_file_of_embeddings_is_replaced(tmp_path: Path, ending: str) -> None:
    own, foreign, empty = (tmp_path / f"{name}{ending}" for name in ("own", "foreign", "empty"))
    if (package := FORMATS[ending]) is not None:
        pytest.importorskip(package)
    write_embeddings(own, FOUND, ending)
    check_format(own)
    empty.touch()
    check_format(empty)
    foreign.write_bytes(b"id,labels\na,b\n")
    with pytest.raises(InputError, match=rf"foreign\{ending} exists and is not a file of embeddings"):
        check_format(foreign)


def test_a_user_s_own_arrays_and_cells_are_not_replaced(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", vectors=FOUND.vectors)
    with pytest.raises(InputError, match=r"x\.npz exists"):
        check_format(tmp_path / "x.npz")
    anndata = pytest.importorskip("anndata")
    own = anndata.AnnData(X=FOUND.vectors)
    own.obs_names, own.var_names = own.obs_names.astype(object), own.var_names.astype(object)
    own.write_h5ad(tmp_path / "x.h5ad")
    with pytest.raises(InputError, match=r"x\.h5ad exists"):
        check_format(tmp_path / "x.h5ad")
