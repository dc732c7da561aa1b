"""Embeddings of new images and of a run's own samples: by one model each, which is named."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.commands import embed
from pipeline.core import paths
from pipeline.core.errors import InputError
from pipeline.evaluation.reference_file import Reference
from pipeline.inference.embedding import image_features
from pipeline.inference.fold_model import FoldModel
from pipeline.models import checkpoint
from tests.fixtures.archives import field
from tests.fixtures.prediction import IDS, SIDE


def expected(name: str, fold: int, images: list[np.ndarray]) -> np.ndarray:
    network, recipe = checkpoint.load(paths.model(name, fold))
    found: np.ndarray = image_features(network, FoldModel(network, recipe).to_input(np.stack(images))).detach().numpy()
    return found


@pytest.mark.usefixtures("folder")
def test_new_images_are_embedded_by_the_first_model_or_the_one_named(capsys: pytest.CaptureFixture[str]) -> None:
    images = [field(id_, SIDE) for id_ in IDS]
    embed.main(["new", "--out", "first.csv"])
    assert "embedding: " in capsys.readouterr().err
    table = pd.read_csv("first.csv", dtype={"id": str})
    assert table["id"].tolist() == IDS
    assert set(zip(table["model"], table["fold"], strict=True)) == {("large", 0)}
    np.testing.assert_allclose(
        table.filter(regex=r"^v\d").to_numpy(), expected("large", 0, images), rtol=2e-4, atol=1e-5
    )
    embed.main(["new", "--out", "other.npz", "--model", "small", "--fold", "1"])
    with np.load("other.npz") as arrays:
        np.testing.assert_allclose(arrays["vectors"], expected("small", 1, images), rtol=1e-4, atol=1e-5)
        assert arrays["models"].tolist() == ["small"] * 3


@pytest.mark.usefixtures("folder")
def test_the_model_of_the_reference_is_preferred_since_its_vectors_can_be_compared() -> None:
    blank, empty = np.array(["0"] * 4), np.zeros((4, 2), np.float32)
    reference = Reference("small", 1, "", blank, blank, np.arange(4), empty, np.zeros((4, 34)), empty)
    reference.save(paths.REFERENCE)
    embed.main(["new"])
    table = pd.read_csv("embeddings.csv")
    assert set(zip(table["model"], table["fold"], strict=True)) == {("small", 1)}


def test_samples_of_a_run_are_embedded_by_models_that_did_not_see_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"s{number}" for number in range(6)]
    images = [field(id_, SIDE) for id_ in ids]
    folds = pd.DataFrame({"id": ids[:4], "source": "sample", "row": range(4), "target": "0", "group": ids[:4]})
    training = folds.assign(fold=[1, 0, 0, 1])
    index = pd.DataFrame({"id": ids, "row": range(6), "split": ["train"] * 4 + ["test"] * 2})
    monkeypatch.setattr(embed, "read_folds", lambda: training)
    monkeypatch.setattr(embed, "read_index", lambda _: index)
    monkeypatch.setattr(embed, "open_images", lambda _: np.stack(images))
    text = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(text.replace("ids: [0, 1, 2]", "ids: [0, 1]"))
    embed.main(["--run", "--model", "large"])
    table = pd.read_csv("embeddings.csv", dtype={"id": str}).set_index("id")
    assert table["fold"].to_dict() == {"s0": 1, "s1": 0, "s2": 0, "s3": 1, "s4": 0, "s5": 0}
    for fold in (0, 1):
        own = table[table["fold"] == fold]
        shown = [images[ids.index(id_)] for id_ in own.index]
        values = own.filter(regex=r"^v\d").to_numpy()
        np.testing.assert_allclose(values, expected("large", fold, shown), rtol=2e-4, atol=1e-5)
    paths.model("large", 0).unlink()
    embed.main(["--run", "--model", "large", "--fold", "1"])
    assert pd.read_csv("embeddings.csv")["fold"].tolist() == [1] * 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], r"name images to embed, or give --run"),
        (["new", "--run"], r"name images to embed, or give --run"),
        (["--run", "--rgb"], r"--run embeds packed images"),
        (["new", "--model", "other"], r"--model other is not in models: choose from large, small"),
        (["new", "--fold", "7"], r"--fold 7 of large is not in models: choose from 0, 1"),
        (["new", "--out", "x.txt"], r"x\.txt: choose one of the endings"),
        (["--run"], r"models lacks large of the folds \[2\]"),
        (["new", "--stains", "blue"], r"--stains blue: name green"),
        (["absent"], r"absent is missing"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(folder: Path, arguments: list[str], message: str) -> None:
    before = sorted(folder.iterdir())
    with pytest.raises(InputError, match=message):
        embed.main(arguments)
    assert sorted(folder.iterdir()) == before


@pytest.mark.usefixtures("folder")
def test_a_bad_image_leaves_the_earlier_file() -> None:
    embed.main(["new"])
    before = Path("embeddings.csv").read_bytes()
    shutil.copytree("new", "worse")
    Path("worse/a_red.png").write_bytes(b"")
    with pytest.raises(InputError, match="a_red"):
        embed.main(["worse"])
    assert Path("embeddings.csv").read_bytes() == before
