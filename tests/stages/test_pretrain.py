"""The stage pretrain: no label is read, the model starts from its encoder, and what it has seen is recorded."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from ruamel.yaml import YAML

from pipeline.core import params, paths
from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS
from pipeline.data.fold_table import read_folds
from pipeline.models import checkpoint
from pipeline.models.network import Network
from pipeline.models.pretrained import start_from_weights
from pipeline.models.provenance import FILES, Provenance
from pipeline.sources.packed_array import read_index
from pipeline.stages import complete_models, pretrain, reconstructions, train
from pipeline.training.job import from_encoder
from tests.fixtures.models import FROZEN, TINY
from tests.fixtures.runs import TEST, TRAIN, write_run

ROOT = Path(__file__).parents[2]
NETWORK = TINY.model_copy(update={"epochs": 1, "batch_size": 30, "pretrained": "stage", "learning_rate": 1e-9})


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run up to the folds, with a network that starts from its own encoder."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    configure()
    write_run()
    index = pd.read_csv(paths.packed_index("sample"), keep_default_na=False)
    for column, digits in [("phash", 64), *((column, 16) for column in FILES)]:
        index[column] = [f"{row:0{digits}x}" for row in index["row"]]
    for channel in CHANNELS:
        index[f"std_{channel}"] = 0.25
    index.to_csv(paths.packed_index("sample"), index=False)
    return tmp_path


def configure(model: params.Model = NETWORK, **changes: object) -> None:
    settings = YAML(typ="safe").load(Path("params.yaml"))
    settings["models"] = {"tiny": model.model_dump(mode="json")}
    settings["machine"] |= {"workers": 0, "devices": 1, "save_minutes": 0}
    settings["pretrain"] |= {"models": ["tiny"], "epochs": 1, "batch_size": 30, "mask_patch": 8, "start": False}
    settings["pretrain"] |= changes
    YAML(typ="safe").dump(settings, Path("params.yaml"))
    complete_models.main()


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    stage = {"train": train, "pretrain": pretrain, "reconstructions": reconstructions}[arguments[0]]
    monkeypatch.setattr(sys, "argv", [arguments[0], "--model", "tiny", *arguments[1:]])
    stage.main()


def recorded(path: Path) -> Provenance:
    return Provenance.from_json(checkpoint.read(path)[1]["seen"], str(path))


def encoder_weights() -> dict[str, torch.Tensor]:
    return checkpoint.read(paths.autoencoder("tiny"))[0]


def test_a_model_starts_from_its_encoder_and_what_was_seen_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, "pretrain")
    weights, description = checkpoint.read(paths.autoencoder("tiny"))
    network = Network(NETWORK)
    assert set(weights) == {name for name in network.state_dict() if name.startswith("backbone.")}
    assert description["pretrain"]["objective"] == "masked"
    start_from_weights(network, from_encoder(params.load().networks[0], "tiny"))  # type: ignore[arg-type]
    started = network.state_dict()
    assert all(torch.equal(started[name], weight) for name, weight in weights.items())

    everything = Provenance.of_samples(pretrain.all_images(("sample",)))
    found = recorded(paths.autoencoder("tiny"))
    assert found == Provenance(unlabelled=everything.digests)
    assert found.seen_among(read_folds()) == [], "no label was seen"
    assert len(found.unlabelled) == 3 * (TRAIN + TEST)

    run(monkeypatch, "train", "--fold", "0")
    trained, description = checkpoint.read(paths.model("tiny", 0))
    name = f"backbone.{network.stem}.weight"
    torch.testing.assert_close(trained[name], weights[name], rtol=0, atol=1e-6)
    assert description["model"]["pretrained"] == "stage"
    folds = read_folds()
    assert recorded(paths.model("tiny", 0)) == Provenance.of_samples(folds[folds["fold"] != 0]).union(found)


def test_no_label_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, "pretrain")
    written = {path: path.read_bytes() for path in Path("autoencoders").iterdir()}
    assert {path.suffix for path in written} == {".safetensors", ".csv", ".npz"}
    index = read_index("sample")
    index["target"] = index["target"].sample(frac=1, random_state=1).to_numpy()
    index["split"] = index["split"].to_numpy()[::-1]
    index.to_csv(paths.packed_index("sample"), index=False)
    paths.FOLDS.unlink()
    shutil.rmtree(paths.RESUME)
    run(monkeypatch, "pretrain")
    assert {path: path.read_bytes() for path in Path("autoencoders").iterdir()} == written


def test_labels_that_the_first_weights_have_seen_stay_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    folds = read_folds()
    seen = Provenance.of_samples(folds[folds["fold"] != 0])
    first = Network(NETWORK)
    checkpoint.save(Path("first.safetensors"), first, NETWORK.model_copy(update={"pretrained": False}), seen)
    configure(start="first.safetensors", learning_rate=1e-9)
    run(monkeypatch, "pretrain")
    assert recorded(paths.autoencoder("tiny")).digests == seen.digests
    name = f"backbone.{first.stem}.weight"
    torch.testing.assert_close(encoder_weights()[name], first.state_dict()[name], rtol=0, atol=1e-6)
    with pytest.raises(InputError, match=r"autoencoders/tiny\.safetensors: .* were trained on 30 of the 30 held-out"):
        run(monkeypatch, "train", "--fold", "1")


def test_the_model_keeps_the_head_of_the_weights_that_its_encoder_started_from(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Network(NETWORK.model_copy(update={"seed": 7}))
    checkpoint.save(Path("first.safetensors"), first, NETWORK.model_copy(update={"pretrained": False}), Provenance())
    head = {name: weight for name, weight in first.state_dict().items() if name.startswith("pooled.")}
    assert head
    configure(start="first.safetensors")
    run(monkeypatch, "pretrain")
    network = Network(NETWORK)
    start_from_weights(network, from_encoder(params.load().networks[0], "tiny"))  # type: ignore[arg-type]
    assert all(torch.equal(network.state_dict()[name], weight) for name, weight in head.items())


def test_a_frozen_network_starts_from_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    configure(FROZEN.model_copy(update={"pretrained": "stage"}))
    run(monkeypatch, "pretrain")
    run(monkeypatch, "train", "--fold", "0")
    trained = checkpoint.read(paths.model("tiny", 0))[0]
    assert all(torch.equal(trained[name], weight) for name, weight in encoder_weights().items())


def test_refusals_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        InputError,
        match=r"^autoencoders/tiny\.safetensors is missing, from which model tiny starts \(pretrained: stage\): run "
        r"dvc repro pretrain$",
    ):
        run(monkeypatch, "train", "--fold", "0")
    paths.encoder_params("tiny").write_text("{}")
    with pytest.raises(InputError, match=r"tiny\.encoder\.json is missing or of another version: run dvc repro compl"):
        run(monkeypatch, "pretrain")
    complete_models.main()
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("attention: cbam", "attention: channel"))
    with pytest.raises(InputError, match=r"tiny\.encoder\.json is older than params\.yaml: run dvc repro complete"):
        run(monkeypatch, "pretrain")
    Path("params.yaml").write_text(text)
    configure(NETWORK.model_copy(update={"pretrained": False}), models=[])
    with pytest.raises(InputError, match=r"pretrain\.models in params\.yaml does not name tiny"):
        run(monkeypatch, "pretrain")


def test_how_a_head_is_trained_does_not_concern_its_encoder() -> None:
    before = paths.encoder_params("tiny").read_bytes()
    configure(NETWORK.model_copy(update={"epochs": 9, "head": "label_queries", "seed": 4, "loss": {"bce": 1.0}}))
    assert paths.encoder_params("tiny").read_bytes() == before
    configure(NETWORK.model_copy(update={"attention": "channel"}))
    assert paths.encoder_params("tiny").read_bytes() != before


def test_the_sheet_is_drawn_and_the_saved_states_are_removed_when_the_encoder_is_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run(monkeypatch, "pretrain")
    assert list(paths.pretraining_states("tiny").rglob("*.pt"))
    run(monkeypatch, "reconstructions")
    assert not paths.pretraining_states("tiny").exists()
    with Image.open(paths.reconstruction_sheet("tiny")) as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    assert pixels.shape[1] > pixels.shape[0] > 300
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 1000
    before = paths.reconstruction_sheet("tiny").read_bytes()
    run(monkeypatch, "reconstructions")
    assert paths.reconstruction_sheet("tiny").read_bytes() == before
    paths.reconstructions("tiny").unlink()
    with pytest.raises(InputError, match="run dvc repro pretrain"):
        run(monkeypatch, "reconstructions")
