"""Maps are drawn with the weights that did not train on the sample."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from ruamel.yaml import YAML

from pipeline.core import params, paths
from pipeline.core.errors import InputError
from pipeline.data.fold_table import read_folds
from pipeline.evaluation import result_files
from pipeline.inference.attention_maps import MAP_SIZE, label_maps
from pipeline.models import checkpoint
from pipeline.models.network import Network
from pipeline.models.provenance import Provenance
from pipeline.sources.packed_array import open_images
from pipeline.stages import explain
from tests.fixtures.models import TINY
from tests.fixtures.runs import SIDE, write_run

COMMITTED = Path("params.yaml").resolve()
MODEL = TINY.model_copy(update={"size": SIDE})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run of one tiny model whose folds have different weights."""
    shutil.copy(COMMITTED, tmp_path)
    monkeypatch.chdir(tmp_path)
    settings = YAML(typ="safe").load(Path("params.yaml"))
    settings["models"] = {"tiny": MODEL.model_dump(mode="json")}
    YAML(typ="safe").dump(settings, Path("params.yaml"))
    write_run()
    for fold in params.load().folds.ids:
        torch.manual_seed(fold)
        checkpoint.save(paths.model("tiny", fold), Network(MODEL), MODEL, Provenance())
    monkeypatch.setattr(sys, "argv", ["explain", "--model", "tiny"])
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_each_pair_is_drawn_by_the_weights_of_its_own_fold() -> None:
    explain.main()
    found = result_files.load_maps("tiny")
    examples = pd.read_csv(paths.TABLES / "examples.csv")
    pairs = set(zip(examples["id"], examples["label"], strict=True))
    assert len(found.ids) == len(pairs)
    assert set(zip(found.ids.tolist(), found.labels.tolist(), strict=True)) == pairs
    folds = read_folds().set_index("id")
    images = open_images("sample")
    assert folds.loc[found.ids.tolist(), "fold"].nunique() == len(params.load().folds.ids)
    for position in (0, len(found.ids) // 2, len(found.ids) - 1):
        row = folds.loc[found.ids[position]]
        network, _ = checkpoint.load(paths.model("tiny", int(row["fold"])))
        image = torch.from_numpy(images[row["row"]].transpose(2, 0, 1).copy())[None]
        label = torch.tensor([found.labels[position]])
        expected = label_maps(network.eval(), image, label, MAP_SIZE)
        assert found.names.tolist() == list(expected)
        drawn = np.stack([kind[0].numpy() for kind in expected.values()])
        # Half a step of rounding, and what a batch of another size adds to it.
        np.testing.assert_allclose(found.maps[position] / 255, drawn, atol=0.6 / 255)


@pytest.mark.usefixtures("folder")
def test_examples_of_another_run_are_refused() -> None:
    path = paths.TABLES / "examples.csv"
    path.write_text("id,label,kind\nstranger,0,best\n")
    with pytest.raises(InputError, match=r"examples\.csv: its samples are not those of data/folds\.csv"):
        explain.main()
    path.unlink()
    with pytest.raises(InputError, match=r"examples\.csv is missing .*run the score stage again"):
        explain.main()


@pytest.mark.usefixtures("folder")
def test_a_model_that_params_does_not_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["explain", "--model", "huge"])
    with pytest.raises(InputError, match=r"--model huge is not in params\.yaml: choose from tiny"):
        explain.main()
