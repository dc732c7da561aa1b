"""A folder in which samples can be predicted, for the tests of ``python -m pipeline predict``."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from ruamel.yaml import YAML

from pipeline.commands import predict
from pipeline.core import paths
from pipeline.models import checkpoint
from pipeline.models.provenance import Provenance
from tests.fixtures.archives import write_files
from tests.fixtures.kaggle_account import kaggle as kaggle
from tests.fixtures.models import TINY
from tests.fixtures.prediction import IDS, SIDE, SIZES, bold, files

COMMITTED = Path("params.yaml").resolve()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two models of two folds each, and three new samples."""
    monkeypatch.chdir(tmp_path)
    settings = YAML(typ="safe").load(COMMITTED)
    settings["pack"]["size"] = SIDE
    settings["models"] = {"tiny": TINY.model_dump(mode="json")}
    settings["machine"] = {"workers": 0, "predict_batch": 2, "devices": 1, "save_minutes": 5, "tensorboard": False}
    YAML(typ="safe").dump(settings, Path("params.yaml"))
    for seed, (name, size) in enumerate(SIZES.items()):
        model = TINY.model_copy(update={"size": size})
        for fold in (0, 1):
            checkpoint.save(paths.model(name, fold), bold(10 * seed + fold, model), model, Provenance())
    write_files(tmp_path / "new", {**files(IDS), "notes.txt": b"", "._a_green.png": b"of a Mac"})
    return tmp_path


@pytest.fixture
def run(folder: Path) -> Callable[..., pd.DataFrame]:
    """Predict as the command line would, and read what was written."""

    def run(*arguments: str) -> pd.DataFrame:
        predict.main(arguments)
        return pd.read_csv(folder / "predictions.csv", dtype={"id": str})

    return run
