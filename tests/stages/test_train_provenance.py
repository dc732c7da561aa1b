"""No fold is trained from weights that have seen its held-out samples, directly or through those they started from."""

import json
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
from ruamel.yaml import YAML
from safetensors.torch import save_file

from pipeline.core import params, paths
from pipeline.core.errors import InputError
from pipeline.data.fold_table import read_folds
from pipeline.models import checkpoint
from pipeline.models.network import Network
from pipeline.models.provenance import FILES, Provenance
from pipeline.stages import complete_models, train
from tests.fixtures.models import CLASSICAL, FROZEN, TINY
from tests.fixtures.runs import write_run

ROOT = Path(__file__).parents[2]
Backbone = params.NetworkModel | params.FrozenModel
NETWORK = TINY.model_copy(update={"epochs": 1, "batch_size": 30})


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run up to the folds: 30 samples in each of three folds, every image different."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    configure()
    write_run()
    path = paths.packed_index("sample")
    index = pd.read_csv(path, keep_default_na=False)
    for column, digits in [("phash", 64), *((column, 16) for column in FILES)]:
        index[column] = [f"{row:0{digits}x}" for row in index["row"]]
    index.to_csv(path, index=False)
    return tmp_path


def configure(**models: params.Model) -> None:
    settings = YAML(typ="safe").load(Path("params.yaml"))
    settings["models"] = {name: model.model_dump(mode="json") for name, model in (models or {"a": NETWORK}).items()}
    settings["machine"] |= {"workers": 0, "devices": 1}
    YAML(typ="safe").dump(settings, Path("params.yaml"))
    complete_models.main()


def trained(monkeypatch: pytest.MonkeyPatch, model: params.Model, fold: int = 0, name: str = "tiny") -> Path:
    configure(**{name: model})
    monkeypatch.setattr(sys, "argv", ["train", "--model", name, "--fold", str(fold)])
    train.main()
    return paths.model(name, fold)


def starting_from(weights: Path, model: Backbone = NETWORK) -> Backbone:
    return model.model_copy(update={"pretrained": str(weights)})


def recorded(path: Path) -> Provenance:
    return Provenance.from_json(checkpoint.read(path)[1]["seen"], str(path))


def without_record(path: Path) -> Path:
    """The file as an earlier version wrote it."""
    weights, description = checkpoint.read(path)
    del description["seen"]
    save_file(weights, "weights.safetensors", {checkpoint.DESCRIPTION: json.dumps(description)})
    return Path("weights.safetensors")


def written(folder: Path) -> dict[Path, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in files if "params" not in str(path.relative_to(folder))}


@pytest.mark.parametrize("model", [NETWORK, FROZEN], ids=lambda model: model.kind)
def test_weights_that_have_seen_held_out_samples_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, model: Backbone
) -> None:
    weights = trained(monkeypatch, NETWORK, fold=0, name="first")
    before = written(folder)
    with pytest.raises(InputError) as refused:
        trained(monkeypatch, starting_from(weights, model), fold=1)
    assert str(refused.value) == (
        "models/first/fold-0.safetensors: these weights, or weights that they started from, were trained on 30 of the "
        "30 held-out samples of fold 1 of model tiny (sample-003, sample-004, sample-005, ...): train them without "
        "these samples (on another source or with another sample.seed), or set the model's pretrained to other weights "
        "or to false"
    )
    assert written(folder) == before
    again = trained(monkeypatch, starting_from(weights, model), fold=0)
    assert recorded(again) == recorded(weights), "both were trained without fold 0"


def test_the_same_images_under_other_ids_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = trained(monkeypatch, NETWORK, fold=0, name="first")
    for path in (paths.packed_index("sample"), paths.FOLDS):
        path.write_text(path.read_text().replace("sample-", "renamed-"))
    with pytest.raises(InputError, match=r"were trained on 30 of the 30 .* \(renamed-003, renamed-004, renamed-005, "):
        trained(monkeypatch, starting_from(weights), fold=1)


def test_what_weights_started_from_counts_as_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = read_folds()
    first = trained(monkeypatch, NETWORK, fold=0, name="first")
    unseen = everything[everything["fold"] == 0]
    unseen.assign(fold=[row % 2 for row in range(len(unseen))]).to_csv(paths.FOLDS, index=False)
    second = trained(monkeypatch, starting_from(first), fold=0, name="second")
    own = Provenance.of_samples(unseen[1::2])
    assert own.seen_among(everything[everything["fold"] != 0]) == [], "the second run alone has seen nothing of fold 1"
    assert recorded(second) == own.union(recorded(first))
    everything.to_csv(paths.FOLDS, index=False)
    with pytest.raises(InputError, match=r"second/fold-0\.safetensors: .* 30 of the 30 held-out samples of fold 1"):
        trained(monkeypatch, starting_from(second), fold=1)
    with pytest.raises(InputError, match=r"second/fold-0\.safetensors: .* 15 of the 30 held-out samples of fold 0"):
        trained(monkeypatch, starting_from(second), fold=0)


def test_a_forest_records_its_training_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    folds = read_folds()
    assert recorded(trained(monkeypatch, CLASSICAL, fold=2)) == Provenance.of_samples(folds[folds["fold"] != 2])


@pytest.mark.parametrize("model", [NETWORK, FROZEN], ids=lambda model: model.kind)
def test_weights_of_this_project_without_a_record_are_allowed_with_a_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model: Backbone
) -> None:
    weights = without_record(trained(monkeypatch, NETWORK, fold=0, name="first"))
    capsys.readouterr()
    started = trained(monkeypatch, starting_from(weights, model), fold=1)
    assert capsys.readouterr().err.count("weights.safetensors does not record all samples that it has seen") == 1
    assert not recorded(started).complete
    trained(monkeypatch, starting_from(started), fold=1, name="next")
    assert f"{started} does not record all" in capsys.readouterr().err, "nor does what started from it"


def test_weights_of_other_programs_count_as_having_seen_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone = Network(NETWORK.model_copy(update={"attention": "none"})).backbone
    save_file(backbone.state_dict(), "photographs.safetensors")
    started = trained(monkeypatch, starting_from(Path("photographs.safetensors")), fold=1)
    assert "record" not in capsys.readouterr().err
    folds = read_folds()
    assert recorded(started) == Provenance.of_samples(folds[folds["fold"] != 1])
