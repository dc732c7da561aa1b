"""New images: the probabilities and decisions that the run itself would give them, whole or not at all."""

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from matplotlib.image import imread
from scipy.special import expit, logit

from pipeline import __main__ as door
from pipeline.core import params, paths
from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS, LABELS
from pipeline.core.paths import replacing
from pipeline.evaluation.reference_file import Reference, digest
from pipeline.inference.attention_maps import MAP_SIZE, label_maps
from pipeline.inference.channel_statistics import channel_statistics
from pipeline.inference.fold_model import FoldModel
from pipeline.inference.run_rule import THRESHOLD
from pipeline.inference.trained_models import find_models
from pipeline.models import checkpoint
from pipeline.models.classical import FeatureForest
from pipeline.models.provenance import Provenance
from pipeline.reporting.pictures import overlay
from pipeline.sources.images import shrink
from tests.fixtures.archives import field, png, write_files, write_zip
from tests.fixtures.models import TINY
from tests.fixtures.prediction import IDS, SIDE, SIZES, bold, files

Predict = Callable[..., pd.DataFrame]


def expected(id_: str, views: int = 4) -> Mapping[str, npt.NDArray[np.float64]]:
    """Each model's probabilities, the views made by numpy and the smaller size by its own mean of 2 x 2 pixels."""
    image = field(id_, SIDE)
    halves = (image.reshape(32, 2, 32, 2, 4).sum(axis=(1, 3), dtype=np.int64) + 2) // 4
    found = {}
    for name, shown in {"large": image, "small": halves.astype(np.uint8)}.items():
        turned = [np.rot90(side, turns) for side in (shown, shown[:, ::-1]) for turns in range(2)][:views]
        batch = torch.from_numpy(np.stack(turned).transpose(0, 3, 1, 2).copy())
        networks = [checkpoint.load(paths.model(name, fold))[0] for fold in (0, 1)]
        with torch.no_grad():
            found[name] = np.mean([network(batch).sigmoid().numpy().mean(axis=0) for network in networks], axis=0)
    return found


def test_probabilities_are_the_mean_over_models_folds_and_views(run: Predict) -> None:
    table = run("new", "--threshold", "0.6")
    assert table.columns.tolist() == ["id", *LABELS, "labels"]
    assert table["id"].tolist() == IDS
    for row, id_ in enumerate(IDS):
        mean = np.mean(list(expected(id_).values()), axis=0)
        np.testing.assert_allclose(table.loc[row, list(LABELS)].to_numpy(float), mean, atol=2e-6)
        chosen = [LABELS[label] for label in np.flatnonzero(mean >= 0.6)] or [LABELS[mean.argmax()]]
        assert table["labels"][row].split("; ") == chosen
    assert table[list(LABELS)].nunique().min() == len(IDS)


def test_relative_probabilities_replace_the_others_and_leave_the_labels(run: Predict) -> None:
    usual = run("new", "--threshold", "0.6")
    table = run("new", "--threshold", "0.6", "--relative")
    assert table["labels"].tolist() == usual["labels"].tolist()
    found = usual[list(LABELS)].to_numpy(float)
    odds = found / (1 - found) / np.sqrt(found.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(table[list(LABELS)].to_numpy(float), odds / (1 + odds), atol=3e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_that_predicts_no_numbers_is_named_and_nothing_is_written(run: Predict, value: float) -> None:
    path = paths.model("small", 1)
    network, recipe = checkpoint.load(path)
    with torch.no_grad():
        next(iter(network.parameters()))[0] = value
    checkpoint.save(path, network, recipe, Provenance())
    before = sorted(Path().iterdir())
    with pytest.raises(InputError, match=r"^model small: its predictions are not finite: .*learning_rate, and train"):
        run("new", "--maps", "maps")
    assert sorted(Path().iterdir()) == before


@pytest.mark.usefixtures("folder")
def test_the_run_beside_the_models_decides(run: Predict) -> None:
    thresholds = np.linspace(0.2, 0.8, len(LABELS))
    rule = {
        "blend": "weights",
        "weights": {"small": 0.25, "large": 0.75},
        "slope": 2.0,
        "offsets": [-1.0] * len(LABELS),
    }
    content = {**rule, "thresholds": thresholds.tolist(), "by_fold": {"0": {}, "1": {}}}
    paths.BLEND.mkdir()
    (paths.BLEND / "decisions.json").write_text(json.dumps(content))
    table = run("new")
    for row, id_ in enumerate(IDS):
        found = expected(id_)
        believed = expit(2 * (0.75 * logit(found["large"]) + 0.25 * logit(found["small"])) - 1)
        np.testing.assert_allclose(table.loc[row, list(LABELS)].to_numpy(float), believed, atol=5e-6)
        assert table["labels"][row].split("; ") == [LABELS[label] for label in np.flatnonzero(believed >= thresholds)]


def test_the_run_says_which_models_decide(run: Predict, capsys: pytest.CaptureFixture[str]) -> None:
    rule = {"blend": "logits", "weights": {"small": 1.0}, "slope": 1.0, "offsets": [0.0] * len(LABELS)}
    paths.BLEND.mkdir()
    content = {**rule, "thresholds": [0.5] * len(LABELS), "by_fold": {"0": {}, "1": {}}}
    (paths.BLEND / "decisions.json").write_text(json.dumps(content))
    table = run("new")
    assert "the decision rule of the run does not use them: large fold 0, large fold 1" in capsys.readouterr().err
    np.testing.assert_allclose(table.loc[0, list(LABELS)].to_numpy(float), expected("a")["small"], atol=5e-6)
    paths.model("small", 1).unlink()
    with pytest.raises(InputError, match="models lacks small fold 1, which the decision rule of the run needs"):
        run("new")


@pytest.mark.usefixtures("folder")
def test_where_the_images_stand_makes_no_difference(run: Predict) -> None:
    run("new")
    first = Path("predictions.csv").read_bytes()
    write_zip(Path("zipped/images.zip"), {f"train/{name}": data for name, data in files(IDS).items()})
    for place in ("zipped", "zipped/images.zip"):
        run(place)
        assert Path("predictions.csv").read_bytes() == first
    singles = [str(path) for path in sorted(Path("new").glob("[abc]*.png"))]
    run(*singles, "new")
    assert Path("predictions.csv").read_bytes() == first


@pytest.mark.usefixtures("folder")
def test_one_sample_and_one_model_without_a_run_are_enough(run: Predict, capsys: pytest.CaptureFixture[str]) -> None:
    table = run(*(f"new/a_{channel}.png" for channel in CHANNELS), "--models", "models/small")
    assert "no run beside models/small" in capsys.readouterr().err
    found = expected("a")["small"]
    np.testing.assert_allclose(table.loc[0, list(LABELS)].to_numpy(float), found, atol=2e-6)
    assert set(table["labels"][0].split("; ")) == {LABELS[label] for label in np.flatnonzero(found >= THRESHOLD)}


@pytest.mark.usefixtures("folder")
def test_each_decided_label_has_its_overlay(run: Predict) -> None:
    table = run("new", "--threshold", "0.6", "--maps", "maps")
    names = {
        f"{id_}_{label.replace(' ', '-')}.png"
        for id_, labels in zip(table["id"], table["labels"], strict=True)
        for label in labels.split("; ")
    }
    assert {path.name for path in Path("maps").iterdir()} == names
    assert len({path.read_bytes() for path in Path("maps").iterdir()}) > len(IDS)
    with pytest.raises(InputError, match="maps already exists"):
        run("new", "--maps", "maps")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("name", "ignored"),
    [
        ("._fold-0.safetensors", True),
        ("fold-0.sync-conflict-20240501-101112.safetensors", True),
        ("@eaDir/fold-0.safetensors", True),
        ("$RECYCLE.BIN/large/fold-0.safetensors", True),
        (".ipynb_checkpoints/fold-0.safetensors", True),
        ("fold-0 copy.safetensors", False),
        ("fold-0 (1).safetensors", False),
    ],
)
def test_copies_of_a_model_that_other_programs_make_are_ignored_and_a_user_s_own_are_named(
    folder: Path, name: str, ignored: bool
) -> None:
    found = find_models(Path("models"))
    copied = folder / "models/large" / name
    copied.parent.mkdir(parents=True, exist_ok=True)
    copied.write_bytes(b"a copy")
    if ignored:
        assert find_models(Path("models")) == found
    else:
        with pytest.raises(InputError, match=r"fold-0 .*: '0 .*' is not a fold: rename it"):
            find_models(Path("models"))


def test_a_place_inside_a_file_and_two_networks_of_one_fold_are_refused(run: Predict) -> None:
    Path("file").write_text("mine")
    with pytest.raises(InputError, match="file is a file, not a folder"):
        run("new", "--out", "file/predictions.csv")
    with pytest.raises(InputError, match="file is a file, not a folder"):
        run("new", "--maps", "file/maps")
    assert Path("file").read_text() == "mine"
    shutil.copytree("models", "models/older")
    with pytest.raises(InputError, match=r"are both .*, fold 0: choose a folder with one"):
        run("new")


@pytest.mark.usefixtures("folder")
def test_an_overlay_shows_the_mean_of_all_models(run: Predict) -> None:
    recipe = params.ClassicalModel(kind="classical", size=SIDE, seed=0)
    for fold in (0, 1):
        forest = FeatureForest(fold)
        seen = torch.from_numpy(np.stack([field(str(number), SIDE) for number in range(12)])).permute(0, 3, 1, 2)
        forest.forest.fit(forest.head_features(seen), (torch.rand(12, len(LABELS)) < 0.5).float())
        checkpoint.save(paths.model("forest", fold), forest, recipe, Provenance())
    table = run(*(f"new/a_{channel}.png" for channel in CHANNELS), "--threshold", "1", "--maps", "maps")
    total = np.zeros((MAP_SIZE, MAP_SIZE))
    label = torch.tensor([LABELS.index(table["labels"][0])])
    for name, size in SIZES.items() | {("forest", SIDE)}:
        seen = torch.from_numpy(shrink(field("a", SIDE), size)).permute(2, 0, 1)[None]
        for fold in (0, 1):
            model, _ = checkpoint.load(paths.model(name, fold))
            kind = "occlusion" if name == "forest" else "gradient"
            total += label_maps(model, seen, label, MAP_SIZE)[kind][0].numpy()
    assert total.max() > 0
    expected = overlay(field("a", SIDE), (255 * total / total.max()).round().astype(np.uint8))
    (path,) = Path("maps").iterdir()
    np.testing.assert_allclose(imread(path) * 255, expected, atol=2)


@pytest.mark.usefixtures("folder")
def test_all_problems_are_told_at_once_and_nothing_is_written(run: Predict) -> None:
    write_files(Path("new"), {"b_1_red.png": files(["b_1"])["b_1_red.png"][:-30]})
    write_files(Path("new"), {"c_blue.png": png(field("c", 32)[..., 0]), "d_green.png": files(["d"])["d_green.png"]})
    before = sorted(Path().iterdir())
    with pytest.raises(InputError) as caught:
        run("new", "--maps", "maps")
    for part in (
        "5 problems",
        "b_1_red.png",
        "a truncated file",
        "different sizes",
        "blue 32",
        "d_blue.png",
        "files are missing",
    ):
        assert part in str(caught.value)
    assert sorted(Path().iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent"], "absent is missing"),
        (["models"], "models: no images found"),
        (["new", "--models", "absent"], "absent: no models found"),
        (["new", "--models", "new"], "new: no models found"),
        (["new", "--out", "new"], "--out .*new is a folder"),
        (["new", "--maps", "m", "--out", "m/p.csv"], "lies inside --maps"),
        (["new", "--threshold", "3"], "--threshold 3.0: give a probability"),
    ],
)
def test_bad_input_is_named(run: Predict, arguments: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(*arguments)


@pytest.mark.usefixtures("folder")
def test_only_an_earlier_table_is_replaced(run: Predict) -> None:
    run("new")
    run("new")
    Path("mine.csv").write_text("id,cell line\na,U-2 OS\n")
    with pytest.raises(InputError, match=r"mine\.csv exists and is not a table of predictions: name another file"):
        run("new", "--out", "mine.csv")
    assert Path("mine.csv").read_text() == "id,cell line\na,U-2 OS\n"


def test_models_that_do_not_fit_are_refused(run: Predict) -> None:
    large = TINY.model_copy(update={"size": 96})
    checkpoint.save(Path("other/large/fold-0.safetensors"), bold(0, large), large, Provenance())
    with pytest.raises(InputError, match="needs images of 96 pixels: raise pack"):
        run("new", "--models", "other")
    with replacing(Path("other/large/fold-0.safetensors")) as path:
        path.write_bytes(paths.model("small", 0).read_bytes().replace(b"Nucleoli", b"Nucleoly"))
    with pytest.raises(InputError, match="its labels are not this version's"):
        run("new", "--models", "other")
    for old, new, fault in (
        (b"dropout", b"dropaut", r"parameters .* \(network\.dropout"),
        (b"bn1.bias", b"bn1.bies", "weights do not fit"),
    ):
        with replacing(Path("other/large/fold-0.safetensors")) as path:
            path.write_bytes(paths.model("small", 0).read_bytes().replace(old, new))
        with pytest.raises(InputError, match=fault):
            run("new", "--models", "other")


@pytest.mark.usefixtures("folder")
def test_the_command_ends_with_a_message_for_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["pipeline", "predict", "absent"])
    with pytest.raises(SystemExit, match=r"^error: .*absent is missing"):
        door.main()


def write_reference(folder: Path, weights: Path) -> None:
    """A reference of 40 samples, half of them held out, of noise like that of the new samples."""
    images = np.stack([field(f"known {number}", SIDE) for number in range(40)])
    model = FoldModel(*checkpoint.load(weights))
    Reference(
        model="small",
        fold=1,
        weights=digest(weights),
        ids=np.array([f"known {number}" for number in range(40)]),
        targets=np.array(["0"] * 40),
        folds=np.arange(40) % 2,
        vectors=model.embed(images, "small"),
        statistics=channel_statistics(images),
        places=np.zeros((40, 2), np.float32),
    ).save(folder / paths.REFERENCE)


def test_samples_unlike_the_training_samples_are_named(
    folder: Path, run: Predict, capsys: pytest.CaptureFixture[str]
) -> None:
    before = run("new", "--threshold", "0.6")
    assert "novelty" not in before
    write_reference(folder, paths.model("small", 1))
    odd = np.zeros((SIDE, SIDE, 4), np.uint8)
    odd[:, ::2] = 255
    write_files(folder / "new", {f"odd_{name}.png": png(odd[..., place]) for place, name in enumerate(CHANNELS)})
    table = run("new", "--threshold", "0.6").set_index("id")
    assert table.columns.tolist() == [*LABELS, "labels", "novelty"]
    pd.testing.assert_frame_equal(table.loc[IDS].drop(columns="novelty"), before.set_index("id"))
    assert table.loc["odd", "novelty"] == pytest.approx(20 / 21, abs=1e-5)
    assert (table.loc[IDS, "novelty"] < 0.95).all()
    assert "samples are unlike the training samples (" in capsys.readouterr().err
    run("new", "--threshold", "0.6", "--stains", "green,blue")
    assert "no novelty: it compares all four stains" in capsys.readouterr().err


def test_a_reference_of_other_weights_is_not_used(
    folder: Path, run: Predict, capsys: pytest.CaptureFixture[str]
) -> None:
    write_reference(folder, paths.model("small", 0))
    assert "novelty" not in run("new", "--threshold", "0.6")
    assert "reference.npz was made with other weights than those in models" in capsys.readouterr().err
    paths.REFERENCE.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"reference\.npz is damaged .*run the reference stage again"):
        run("new", "--threshold", "0.6")
