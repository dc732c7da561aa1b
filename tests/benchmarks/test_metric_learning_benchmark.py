"""Metric learning at toy size: the loss against its definition, and files that the benchmark on retrieval reads."""

import math
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from ruamel.yaml import YAML
from scipy.special import log_softmax
from sklearn.metrics import log_loss

from benchmarks import metric_learning, retrieval
from benchmarks.metric_learning import Encoder, Settings, arcface, number_classes
from pipeline.core import paths
from pipeline.core.errors import InputError
from pipeline.data.fold_table import read_folds
from pipeline.inference.fold_model import FoldModel
from pipeline.models import checkpoint
from pipeline.models.network import Network
from pipeline.models.provenance import FILES, Provenance
from tests.fixtures.archives import competition, write_files
from tests.fixtures.models import FROZEN, TINY
from tests.fixtures.runs import TEST, TRAIN, write_run

ROOT = Path(__file__).parents[2]
MODEL = TINY.model_copy(update={"batch_size": 30})
REAL = {"r1": "0", "r2": "25", "r3": "0 25", "r4": "0", "r5": "25", "r6": "2"}
SHORT = Settings(components=8, epochs=2)
LONG = Settings(components=8, epochs=20, learning_rate=0.01)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose model has a weight file for each fold, and a folder of real fields."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    settings = YAML(typ="safe").load(Path("params.yaml"))
    settings["models"] = {"tiny": MODEL.model_dump(mode="json")}
    settings["machine"] |= {"workers": 0, "devices": 1}
    settings["pack"]["size"] = 32
    YAML(typ="safe").dump(settings, Path("params.yaml"))
    write_run()
    index = pd.read_csv(paths.packed_index("sample"), keep_default_na=False)
    for column in FILES:
        index[column] = [f"{row:016x}" for row in index["row"]]
    index.to_csv(paths.packed_index("sample"), index=False)
    for fold in range(3):
        checkpoint.save(paths.model("tiny", fold), Network(MODEL), MODEL, Provenance())
    write_files(tmp_path / "real", competition(REAL, ()))
    return tmp_path


def cosines(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of 12 samples to 5 centres, and the class of each sample."""
    random = np.random.default_rng(seed)
    return random.uniform(-1, 1, (12, 5)).astype(np.float32), random.integers(0, 5, 12)


def loss(found: np.ndarray, classes: np.ndarray, margin: float, scale: float) -> float:
    return float(arcface(torch.from_numpy(found), torch.from_numpy(classes), margin, scale))


def test_without_a_margin_it_is_the_cross_entropy_of_scaled_cosines() -> None:
    found, classes = cosines()
    probabilities = np.exp(log_softmax(10 * found.astype(np.float64), axis=1))
    assert loss(found, classes, 0.0, 10.0) == pytest.approx(log_loss(classes, probabilities, labels=range(5)), rel=1e-5)


def test_the_margin_is_added_to_the_angle_of_the_own_class() -> None:
    found, classes = cosines()
    rows = np.arange(len(classes))
    found[rows, classes] = np.linspace(-0.8, 0.99, len(classes), dtype=np.float32)  # angle and margin below pi
    logits = found.astype(np.float64)
    logits[rows, classes] = np.cos(np.arccos(logits[rows, classes]) + 0.5)
    expected = -log_softmax(30 * logits, axis=1)[rows, classes].mean()
    assert loss(found, classes, 0.5, 30.0) == pytest.approx(expected, rel=1e-5)


def test_the_loss_falls_with_the_angle_to_the_own_centre_also_where_the_margin_passes_pi() -> None:
    own = np.cos(np.linspace(0, np.pi, 50)).astype(np.float32)
    losses = [loss(np.array([[each, 0.2]], np.float32), np.array([0]), 0.5, 5.0) for each in own]
    assert (np.diff(losses) > 0).all()


@pytest.mark.parametrize("cosine", [1.0, -1.0, -math.cos(0.5)])
def test_the_gradient_is_finite_where_the_angle_is_0_or_pi(cosine: float) -> None:
    given = torch.tensor([[cosine, 0.1, -0.3]], requires_grad=True)
    arcface(given, torch.tensor([0]), 0.5, 30.0).backward()  # type: ignore[no-untyped-call]
    assert given.grad is not None
    assert given.grad.isfinite().all()
    assert given.grad[0, 0] <= 0


def test_embeddings_have_length_1_and_their_cosines_are_those_of_the_angles() -> None:
    encoder = Encoder(Network(MODEL), 3 * sum(Network(MODEL).stages.channels), 8, 4, 0.1).eval()
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 4, 32, 32), dtype=np.uint8))
    with torch.no_grad():
        vectors = encoder(images)
        found = encoder.cosines(vectors)
    assert vectors.norm(dim=1).numpy() == pytest.approx(np.ones(3), abs=1e-6)
    expected = torch.nn.functional.cosine_similarity(vectors[:, None], encoder.centres[None].detach(), dim=2)
    assert found.numpy() == pytest.approx(expected.numpy(), abs=1e-6)


def test_classes_are_groups_or_sets_of_labels_in_any_order() -> None:
    table = pd.DataFrame({"target": ["0 16", "16 0", "3", "3"], "group": ["a", "b", "b", "c"]})
    assert number_classes(table, "labels").tolist() == [0, 0, 1, 1]
    assert number_classes(table, "groups").tolist() == [0, 1, 1, 2]
    with pytest.raises(InputError, match="no two samples have the same groups: take --classes labels"):
        number_classes(table.assign(group=list("abcd")), "groups")


def test_the_files_are_judged_by_the_benchmark_on_retrieval(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder / "out"
    metric_learning.main("tiny", out, [Path("real")], SHORT)
    samples = read_folds()
    by_fold = {}
    for fold in range(3):
        ids, number, vectors = retrieval.read_embeddings(out / f"fold-{fold}.npz")
        assert (number, len(ids)) == (fold, TRAIN + TEST)
        assert set(samples["id"]) <= set(ids)
        assert vectors.shape == (TRAIN + TEST, 8)
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(len(ids)), abs=1e-5)
        by_fold[fold] = vectors
    assert not np.allclose(by_fold[0], by_fold[1]), "each by its own encoder"
    figures = retrieval.of_images(Path("real"), [out / "real.npz"])
    assert figures["queries"] == len(REAL)
    assert len(re.findall("held-out antibodies", capsys.readouterr().err)) == 3

    monkeypatch.setattr(metric_learning, "fit", None)  # a second time, nothing is trained
    metric_learning.main("tiny", folder / "again", [Path("real")], SHORT)
    for file in sorted(out.iterdir()):
        assert (folder / "again" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.usefixtures("folder")
def test_training_lowers_the_loss_and_does_not_depend_on_held_out_samples() -> None:
    folds, images = read_folds(), {"sample": np.load(paths.packed_images("sample"))}
    for _, samples in folds.groupby("group"):  # samples of a group look alike
        images["sample"][samples["row"]] = images["sample"][samples["row"].iloc[0]]
    trained = metric_learning.train("tiny", 0, folds, images, LONG)
    changed = images["sample"].copy()
    changed[folds.loc[folds["fold"] == 0, "row"]] = 0
    shutil.rmtree(metric_learning.KEPT)
    again = metric_learning.train("tiny", 0, folds, {"sample": changed}, LONG)
    assert (trained.embed(images["sample"][:4]) == again.embed(images["sample"][:4])).all()

    rest = folds[folds["fold"] != 0]
    codes = torch.from_numpy(number_classes(rest, "groups"))
    start, _ = metric_learning.build(paths.model("tiny", 0), LONG, int(codes.max()) + 1)
    before = metric_learning.FoldEncoder(start.eval(), trained.recipe)

    def of(encoder: metric_learning.FoldEncoder) -> float:
        vectors = torch.from_numpy(encoder.embed(images["sample"][rest["row"]]))
        return float(arcface(encoder.encoder.cosines(vectors).detach(), codes, 0.5, 30.0))

    assert of(trained) < of(before)


@pytest.mark.usefixtures("folder")
def test_without_epochs_they_are_the_pooled_feature_maps_of_the_start() -> None:
    images = {"sample": np.load(paths.packed_images("sample"))}
    found = metric_learning.train("tiny", 1, read_folds(), images, Settings(epochs=0))
    network, _ = checkpoint.load(paths.model("tiny", 1))
    assert isinstance(network, Network)
    with torch.no_grad():
        maps = network.feature_maps(FoldModel(network, MODEL).to_input(images["sample"][:3]))
    parts = [(each.mean((2, 3)), each.std((2, 3), correction=0), each.amax((2, 3))) for each in maps]
    expected = torch.cat([torch.cat(part, dim=1) for part in parts], dim=1).numpy()
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert found.embed(images["sample"][:3]) == pytest.approx(expected, abs=1e-4)


def test_wrong_requests_are_refused(folder: Path) -> None:
    folder.joinpath("fold-1").mkdir()
    with pytest.raises(InputError, match=r"two files would be called the same \(fold-1\.npz\)"):
        metric_learning.main("tiny", folder / "out", [Path("fold-1")], SHORT)
    frozen = Network(FROZEN)
    assert frozen.kernel is not None
    frozen.kernel.fit(torch.rand(6, frozen.kernel.knots.shape[1]), torch.eye(6, 28))
    checkpoint.save(paths.model("tiny", 0), frozen, FROZEN, Provenance())
    with pytest.raises(InputError, match="needs a model of kind network, not frozen"):
        metric_learning.main("tiny", folder / "out", [], SHORT)
