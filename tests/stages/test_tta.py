"""Predictions of one job: nothing is written, and no saved state is lost, if they are no numbers."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML

from pipeline.core import paths
from pipeline.core.errors import InputError
from pipeline.evaluation.prediction_files import load_predictions
from pipeline.models import checkpoint
from pipeline.models.provenance import Provenance
from pipeline.stages import tta
from tests.fixtures.models import TINY
from tests.fixtures.prediction import bold
from tests.fixtures.runs import TEST, write_run


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run with one model, whose job of fold 0 comes next and has a saved state."""
    settings: dict[str, Any] = YAML(typ="safe").load(Path("params.yaml"))
    monkeypatch.chdir(tmp_path)
    settings["models"] = {"tiny": TINY.model_copy(update={"size": 32}).model_dump(mode="json")}
    settings["machine"]["workers"] = 0
    YAML(typ="safe").dump(settings, Path("params.yaml"))
    write_run()
    monkeypatch.setattr(sys, "argv", ["tta", "--model", "tiny", "--fold", "0"])
    paths.states("tiny", 0).mkdir(parents=True)
    return paths.predictions("tiny", 0)


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_predictions_that_are_no_numbers_are_refused_before_they_are_written(job: Path, value: float | None) -> None:
    model = TINY.model_copy(update={"size": 32})
    network = bold(0, model)
    assert network.pooled is not None
    if value is not None:
        with torch.no_grad():
            network.pooled.linear.weight[3] = value
    checkpoint.save(paths.model("tiny", 0), network, model, Provenance())
    if value is None:
        tta.main()
        assert load_predictions(job).test.shape == (TEST, 28)
    else:
        with pytest.raises(
            InputError, match=r"^models/tiny/fold-0\.safetensors: its predictions are not finite: its train"
        ):
            tta.main()
        assert not job.exists()
    assert paths.states("tiny", 0).exists() == (value is not None)
