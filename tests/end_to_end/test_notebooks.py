"""The notebooks run from top to bottom on a finished run, and are committed without outputs."""

import shutil
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient

from pipeline.core import paths
from pipeline.core.labels import LABELS
from pipeline.core.params import load
from pipeline.evaluation import result_files
from pipeline.evaluation.result_files import Blend
from pipeline.models import checkpoint
from pipeline.models.network import Network
from pipeline.models.provenance import Provenance
from pipeline.sources.packed_array import read_index
from tests.fixtures.models import TINY
from tests.fixtures.runs import SIDE, write_run

ROOT = Path(__file__).parents[2]

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
STARTS = {"01_data": ".", "02_folds_and_score": "notebooks", "03_attention_maps": "notebooks"}
"""The working folder in which each is started."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with its networks and its test decisions."""
    root = tmp_path_factory.mktemp("run")
    (root / "notebooks").mkdir()
    shutil.copy(ROOT / "params.yaml", root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write_run()
        params, index = load(), read_index(load().data.sources[0])
        ids = index.loc[index["split"] == "test", "id"].to_numpy(dtype=np.str_)
        random = np.random.default_rng(0).random((len(ids), len(LABELS))).astype(np.float32)
        Blend(ids, random, random, random > 0.5).save(result_files.TEST)
        recipe = TINY.model_copy(update={"size": SIDE})
        for model in params.models:
            for fold in params.folds.ids:
                torch.manual_seed(fold)
                checkpoint.save(paths.model(model, fold), Network(recipe), recipe, Provenance())
    return root


def run(path: Path, folder: Path) -> None:
    """Execute a notebook on the run in a folder; it must draw figures and print no warning."""
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder / STARTS[path.stem])}}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in shown) >= 3
    assert not [output["text"] for output in shown if output.get("name") == "stderr"]


def test_every_notebook_is_tested() -> None:
    assert [path.stem for path in NOTEBOOKS] == list(STARTS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_to_its_end(folder: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    run(path, folder)


def test_occlusion_maps_of_a_classical_model_are_shown(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    copy = shutil.copytree(folder, tmp_path / "run")
    monkeypatch.chdir(copy)
    for model in load().models:
        found = result_files.load_maps(model)
        replace(found, names=np.array(["occlusion"]), maps=found.maps[:, :1]).save(model)
    run(next(path for path in NOTEBOOKS if "maps" in path.stem), copy)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_committed_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
