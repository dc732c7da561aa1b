"""The comparison of starts with and without pre-training without labels, at toy size."""

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML
from sklearn.metrics import average_precision_score

from benchmarks import pretraining
from benchmarks.pretraining import STARTS, Start
from pipeline.core import params, paths
from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS, target_matrix
from pipeline.data.fold_table import read_folds
from pipeline.models import checkpoint
from pipeline.models.network import Network
from pipeline.models.provenance import FILES, Provenance
from tests.fixtures.archives import competition, write_files
from tests.fixtures.models import TINY
from tests.fixtures.runs import write_run

ROOT = Path(__file__).parents[2]
MODEL = TINY.model_copy(update={"epochs": 1, "batch_size": 30, "pretrained": "own.safetensors"})
REAL = {"r1": "0", "r2": "25", "r3": "0 25", "r4": "0", "r5": "25", "r6": "2"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run up to the folds, the weights that its model names, and a folder of real fields."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    settings = YAML(typ="safe").load(Path("params.yaml"))
    settings["models"] = {"tiny": MODEL.model_dump(mode="json")}
    settings["machine"] |= {"workers": 0, "devices": 1}
    settings["pretrain"] |= {"epochs": 1, "batch_size": 30, "mask_patch": 8}
    YAML(typ="safe").dump(settings, Path("params.yaml"))
    write_run()
    index = pd.read_csv(paths.packed_index("sample"), keep_default_na=False)
    for column in FILES:
        index[column] = [f"{row:016x}" for row in index["row"]]
    for channel in CHANNELS:
        index[f"std_{channel}"] = 0.25
    index.to_csv(paths.packed_index("sample"), index=False)
    checkpoint.save(Path("own.safetensors"), Network(MODEL), MODEL, Provenance(complete=False))
    write_files(tmp_path / "real", competition(REAL, ()))
    return tmp_path


def run(capsys: pytest.CaptureFixture[str]) -> str:
    pretraining.main("tiny", Path("real"), Path("real"), scratch_epochs=2, scratch_rate=0.01)
    return capsys.readouterr().out


def test_each_start_is_trained_once_and_scored_as_scikit_learn_does(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: dict[str, pretraining.Judged] = {}
    recipes: dict[str, params.NetworkModel | params.FrozenModel] = {}
    judge = pretraining.judge

    def spy(recipe, folds, images, real, name):  # type: ignore[no-untyped-def]
        recipes[name], judged[name] = recipe, judge(recipe, folds, images, real, name)
        return judged[name]

    monkeypatch.setattr(pretraining, "judge", spy)
    printed = run(capsys)

    assert list(judged) == list(STARTS)
    assert recipes["nothing"].pretrained is False
    assert recipes["weights"].pretrained == "own.safetensors"
    assert {recipes[name].epochs for name in ("nothing", "autoencoder")} == {2}  # type: ignore[union-attr]
    assert {recipes[name].epochs for name in ("weights", "weights, then autoencoder")} == {1}  # type: ignore[union-attr]
    encoders = [str(recipes[name].pretrained) for name, start in STARTS.items() if start.autoencoder]
    assert len(set(encoders)) == 2
    assert all(Path(encoder).exists() for encoder in encoders)
    for first, other in zip(STARTS, list(STARTS)[1:], strict=False):
        assert not np.allclose(judged[first].out_of_fold, judged[other].out_of_fold)

    folds = read_folds()
    truth = target_matrix(folds["target"]) > 0
    labels = [label for label in range(truth.shape[1]) if 3 <= truth[:, label].sum() < len(truth)]
    for name, found in judged.items():
        expected = np.mean([average_precision_score(truth[:, label], found.out_of_fold[:, label]) for label in labels])
        [row] = [line for line in printed.splitlines() if re.match(rf"\| {name} +\| ", line)]
        assert float(row.split("|")[2].split()[0]) == pytest.approx(expected, abs=6e-4)
        assert found.real is not None
        assert found.real.shape == (len(REAL), 28)

    monkeypatch.setattr(pretraining, "train_model", None)
    monkeypatch.setattr(pretraining, "fit_autoencoder", None)
    assert run(capsys) == printed, "a second time, nothing is trained"


def test_an_autoencoder_is_compared_with_the_same_start_without_it() -> None:
    truth = np.zeros((40, 28), bool)
    truth[::2, 0] = truth[1::2, 1] = True
    groups = np.array([f"g{row}" for row in range(40)])
    good, bad = np.where(truth, 0.9, 0.1).astype(np.float32), np.where(truth, 0.1, 0.9).astype(np.float32)
    found = dict(zip(STARTS, (bad, good, good, bad), strict=True))
    table = pretraining.tabulate("", truth, groups, found).set_index("")
    assert [text.split()[0] for text in table["mean AP"]][1:3] == ["1.000", "1.000"]
    column = table["to the same without autoencoder"]
    assert column["autoencoder"].startswith("+")
    assert column["weights, then autoencoder"].startswith("-")
    assert column["nothing"] == column["weights"] == ""
    assert STARTS["weights, then autoencoder"] == Start(weights=True, autoencoder=True)


def test_a_model_without_a_weight_file_is_refused() -> None:
    with pytest.raises(InputError, match="whose pretrained is a weight file or false"):
        pretraining.main("other", None, None, 1, 0.1)
