"""Label ranking on real fields, at toy size: scores and resamples against scikit-learn, predictions against a loop."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from scipy.special import expit
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks import real_fields
from benchmarks.real_fields import MIN_POSITIVES, keep_stains, label_mean, mean_table, rank_scores, ranking
from pipeline.core import params
from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS, LABELS, format_target, target_matrix
from pipeline.core.params import Machine, Simulation
from pipeline.data.loader import Samples
from pipeline.inference.new_images import open_places
from pipeline.inference.trained_models import LoadedModels, predict
from pipeline.models import checkpoint
from pipeline.models.classical import FeatureForest, extract_features
from pipeline.models.network import Network
from pipeline.models.provenance import Provenance
from pipeline.simulation.competition import Entry, plan
from pipeline.simulation.render import render
from pipeline.sources.images import fit, shrink_quickly
from pipeline.training.closed_form import fit_closed_form
from pipeline.training.history import Epoch
from tests.fixtures.archives import competition, field, write_files
from tests.fixtures.models import CLASSICAL, TINY

REAL = Path("../shared/hpa/fields")
SIDE = 64
TARGETS = {f"s{number:02}": target for number, target in enumerate(("0", "0 25", "25", "0 2", "16", "25 2", "0", "7"))}
SMALL = Simulation(seed=3, train=12, test=1, size=64, fields_per_antibody=3.0, near_duplicates=0.0, test_exposure=0.75)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """The weight file of an untrained network."""
    torch.manual_seed(0)
    path = tmp_path / "network.safetensors"
    checkpoint.save(path, Network(TINY), TINY, Provenance())
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Fields of noise, with two labels that three of them or more have."""
    return write_files(tmp_path / "fields", competition(TARGETS, (), side=SIDE))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Entry]:
    """Makes simulation fast: small fields, drawn in this process; the entries that have been rendered."""
    entries: list[Entry] = []

    def spy(entry: Entry, settings: Simulation) -> npt.NDArray[np.uint8]:
        entries.append(entry)
        return render(entry, settings)

    settings = params.load().model_copy(update={"sample": SMALL})
    monkeypatch.setattr(params, "load", lambda: settings)
    monkeypatch.setattr(real_fields, "in_order", lambda work, items, _: map(work, items))
    monkeypatch.setattr(real_fields, "render", spy)
    return entries


def random_case(count: int = 60) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    """Truth, and probabilities with ties that know something of it."""
    generator = np.random.default_rng(0)
    truth = generator.random((count, len(LABELS))) < np.linspace(0, 1, len(LABELS))
    return truth, (0.3 * truth + 0.7 * generator.random(truth.shape)).round(1).astype(np.float32)


def test_scores_are_those_of_scikit_learn() -> None:
    truth, probabilities = random_case()
    scores = rank_scores(truth, probabilities, resamples=5)
    positives = truth.sum(axis=0)
    expected = [label for label in range(len(LABELS)) if MIN_POSITIVES <= positives[label] < len(truth)]
    assert 0 < len(expected) < len(LABELS)
    assert scores.labels.tolist() == expected
    assert scores.positives.tolist() == positives[expected].tolist()
    assert scores.chance == pytest.approx(positives[expected] / len(truth))
    for column, label in enumerate(expected):
        one = truth[:, label], probabilities[:, label]
        assert scores.auc[0, column] == pytest.approx(roc_auc_score(*one))
        assert scores.ap[0, column] == pytest.approx(average_precision_score(*one))


def test_resamples_are_scored_as_scikit_learn_does_with_weights() -> None:
    truth, probabilities = random_case()
    generator = np.random.default_rng(1)
    weights = generator.multinomial(len(truth), np.full(len(truth), 1 / len(truth)), size=20).astype(float)
    auc, ap = ranking(truth[:, 9], probabilities[:, 9], weights)
    for row, counts in enumerate(weights):
        one = truth[:, 9], probabilities[:, 9]
        assert auc[row] == pytest.approx(roc_auc_score(*one, sample_weight=counts))
        assert ap[row] == pytest.approx(average_precision_score(*one, sample_weight=counts))


def test_a_resample_without_positives_or_without_negatives_is_left_out_for_this_label_only() -> None:
    truth = np.array([True, False, True, False])
    weights = np.array([[0.0, 1, 0, 3], [2, 0, 2, 0], [1, 1, 1, 1]])
    found = ranking(truth, np.array([0.9, 0.8, 0.7, 0.1]), weights)
    assert np.isnan(found).tolist() == [[True, True, False]] * 2
    means = label_mean(np.array([[0.2, 0.4], [np.nan, 0.6], [np.nan, np.nan]]))
    assert means == pytest.approx([0.3, 0.6, np.nan], nan_ok=True)


def test_intervals_contain_the_score_and_resamples_are_of_images() -> None:
    truth, probabilities = random_case()
    scores = rank_scores(truth, probabilities)
    for each in (scores.auc, scores.ap):
        assert each.shape == (1001, len(scores.labels))
        low, high = np.nanquantile(each[1:], [0.025, 0.975], axis=0)
        assert ((low <= each[0]) & (each[0] <= high)).all()
    again = rank_scores(truth, probabilities)
    assert np.array_equal(again.auc, scores.auc, equal_nan=True), "the same seed, other resamples"
    # A label's column and its copy are resampled together, so their scores agree in every resample.
    truth[:, 9], probabilities[:, 9] = truth[:, 10], probabilities[:, 10]
    copied = rank_scores(truth, probabilities)
    nine, ten = (int(np.flatnonzero(copied.labels == label)[0]) for label in (9, 10))
    assert np.array_equal(copied.ap[:, nine], copied.ap[:, ten])


def test_the_difference_of_two_models_is_paired() -> None:
    truth, probabilities = random_case()
    network, forest = rank_scores(truth, probabilities), rank_scores(truth, probabilities**2)  # the same order
    rows = mean_table({"network": network, "forest": forest}).to_numpy().tolist()
    assert [row[0] for row in rows] == ["network", "forest", "network - forest"]
    assert rows[0][1:] == rows[1][1:]
    assert rows[2][1:] == ["0.000 (0.000 to 0.000)"] * 2
    assert len(mean_table({"network": network})) == 1
    third = mean_table({"network": network, "forest": forest, "other": network})
    assert third[""].tolist() == ["network", "forest", "other", "network - forest", "network - other"]


def test_the_command_scores_the_mean_over_views_and_sizes(
    folder: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(real_fields, "READ_SIZE", SIDE)
    monkeypatch.setattr(real_fields, "BATCH", 3)
    real_fields.main(weights, folder, size="32,64")
    printed = capsys.readouterr().out
    figures = json.loads(printed.splitlines()[-1])

    network = checkpoint.load(weights)[0]
    predicted = np.zeros((len(TARGETS), len(LABELS)))
    for size in (32, 64):
        images = np.stack([shrink_quickly(field(id_, SIDE), size) for id_ in TARGETS]).transpose(0, 3, 1, 2)
        for flipped in (images, images[..., ::-1]):
            for quarters in range(4):
                view = np.rot90(flipped, quarters, axes=(2, 3)).copy()
                with torch.no_grad():
                    predicted += network(torch.from_numpy(view)).sigmoid().numpy() / 16
    truth = target_matrix(TARGETS.values())
    assert (figures["n"], figures["labels"]) == (8, 2)
    auc, ap = (
        [score(truth[:, label], predicted[:, label]) for label in (0, 25)]
        for score in (roc_auc_score, average_precision_score)
    )
    assert figures["plain_mean_auc"] == pytest.approx(np.mean(auc))
    assert figures["plain_mean_ap"] == pytest.approx(np.mean(ap))
    assert set(figures) == {"mean_auc", "mean_ap", "plain_mean_auc", "plain_mean_ap", "n", "labels"}
    for text in (f"8 samples of {folder}", f"weights: {weights}", "Nucleoplasm", "Cytosol", f"{ap[0]:.3f} ("):
        assert text in printed


def test_images_are_ranked_by_relative_probabilities(
    folder: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Images differ in their expected number of labels, as those of networks that were only initialised hardly do.
    generator = np.random.default_rng(0)
    predicted = expit(generator.normal(size=(len(TARGETS), len(LABELS))) + 3 * generator.normal(size=(len(TARGETS), 1)))
    monkeypatch.setattr(real_fields, "predict_all", lambda *_: {"network": predicted})
    real_fields.main(weights, folder)
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    truth = target_matrix(TARGETS.values())
    odds = predicted / (1 - predicted) / np.sqrt(predicted.sum(axis=1, keepdims=True))
    for prefix, scores in (("", odds), ("plain_", predicted)):
        expected = np.mean([roc_auc_score(truth[:, label], scores[:, label]) for label in (0, 25)])
        assert figures[f"{prefix}mean_auc"] == pytest.approx(expected)
    assert figures["mean_auc"] != figures["plain_mean_auc"], "a case that does not tell them apart"


def test_default_sizes_are_multiples_of_the_stride() -> None:
    assert real_fields.default_sizes(384) == [384, 448, 512]
    assert real_fields.default_sizes(64) == [64, 96]


def test_the_forest_is_scored_beside_the_network(
    folder: Path, weights: Path, drawn: list[Entry], capsys: pytest.CaptureFixture[str]
) -> None:
    real_fields.main(weights, folder, forest=10, forest_seed=5)
    printed = capsys.readouterr().out
    figures = json.loads(printed.splitlines()[-1])
    means = {f"{model}mean_{score}" for model in ("", "plain_", "forest_") for score in ("auc", "ap")}
    assert set(figures) == means | {"n", "labels"}
    assert [entry.id for entry in drawn] == [
        entry.id
        for entry in plan(SMALL.model_copy(update={"train": 10, "seed": 5}))
        if entry.split == "train"  # the test entry is not drawn
    ]
    for text in ("forest AUC", "forest AP", "network - forest", "10 simulated fields, seed 5"):
        assert text in printed


@pytest.mark.usefixtures("drawn")
def test_the_forest_is_that_of_a_training_on_the_same_fields() -> None:
    forest = real_fields.train_forest(SMALL, CLASSICAL, CHANNELS, None)
    entries = [entry for entry in plan(SMALL) if entry.split == "train"]
    targets = [format_target(entry.labels) for entry in entries]
    table = pd.DataFrame({"source": "simulated", "row": range(len(entries)), "target": targets})
    images = np.stack([render(entry, SMALL) for entry in entries])
    samples = Samples(table, {"simulated": images}, CLASSICAL.size)
    expected: list[npt.NDArray[np.float32]] = []

    def on_epoch(_: Epoch, probabilities: npt.NDArray[np.float32]) -> float:
        expected.append(probabilities)
        return 0.0

    machine = Machine(workers=0, predict_batch=4, devices=1, save_minutes=60, tensorboard=False)
    fit_closed_form(FeatureForest(CLASSICAL.seed), samples, samples, CLASSICAL, machine, on_epoch)
    with torch.no_grad():
        found = forest(samples.batch([(0, position, 0) for position in range(len(samples))])[0]).sigmoid()
    np.testing.assert_allclose(found.cpu().numpy(), expected[0], rtol=1e-6)  # sums depend on the batch size


def test_cached_features_are_used_for_the_same_fields_only(drawn: list[Entry], tmp_path: Path) -> None:
    def train(stains: Sequence[str], **changes: int) -> torch.Tensor:
        settings = SMALL.model_copy(update=changes)
        return real_fields.train_forest(settings, CLASSICAL, stains, tmp_path / "new").forest.share

    first = train(CHANNELS)
    assert len(drawn) == SMALL.train
    assert torch.equal(train(CHANNELS), first)
    assert len(drawn) == SMALL.train, "nothing is rendered again"
    train(("green", "blue"))
    assert len(drawn) == 2 * SMALL.train, "features of other stains"
    train(CHANNELS, seed=4)
    assert len(drawn) == 3 * SMALL.train


def test_other_stains_are_black_for_both_models(
    folder: Path, weights: Path, drawn: list[Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[npt.NDArray[np.uint8]]] = {"predicted": [], "features": []}

    def spy_predict(
        models: LoadedModels, images: npt.NDArray[np.uint8], views: Sequence[str]
    ) -> npt.NDArray[np.float32]:
        seen["predicted"].append(images)
        return predict(models, images, views)

    def spy_features(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        seen["features"].append(image)
        return extract_features(image)

    monkeypatch.setattr(real_fields, "predict", spy_predict)
    monkeypatch.setattr(real_fields, "extract_features", spy_features)
    real_fields.main(weights, folder, stains="blue,green", forest=8)
    fields = np.stack([fit(field(id_, SIDE), real_fields.READ_SIZE) for id_ in TARGETS])
    shown = np.concatenate(seen["predicted"])
    assert shown[..., 2:].max() == 0
    assert np.array_equal(shown[..., :2], fields[..., :2])
    assert len(seen["features"]) == len(drawn) == 8
    assert all(image[2:].max() == 0 and image[:2].max() > 0 for image in seen["features"])


def test_keeping_stains_changes_no_other_channel() -> None:
    image = np.full((2, 3, 3, 4), 200, np.uint8)
    kept = keep_stains(image, ["green", "yellow"])
    assert kept.dtype == np.uint8
    assert kept[0, 0, 0].tolist() == [200, 0, 0, 200]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stains": "green,violet"}, r"--stains green,violet: 'violet' is no stain: choose from green, blue, red"),
        ({"stains": "blue,red"}, r"--stains blue,red: green, the protein, is missing: add it"),
        ({"size": "64,big"}, r"--size 64,big: give sizes of 32 to 4096 pixels, separated by commas"),
        ({"size": "16"}, r"--size 16: give sizes of 32 to 4096 pixels"),
        ({"forest": -1}, r"--forest and --forest-seed: give numbers from 0"),
        ({"weights": Path("none.safetensors")}, r"none\.safetensors is missing"),
        ({"folder": Path("nowhere")}, r"nowhere is missing"),
    ],
)
def test_options_that_cannot_be_used_are_named(
    folder: Path, weights: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        real_fields.main(**({"weights": weights, "folder": folder} | options))  # type: ignore[arg-type]


def test_folders_that_cannot_be_scored_are_named(weights: Path, tmp_path: Path) -> None:
    complete = competition(TARGETS, (), side=SIDE)
    without_table = {name: data for name, data in complete.items() if name != "train.csv"}
    with pytest.raises(InputError, match=r"no-table: there is no train\.csv among 32 files"):
        real_fields.main(weights, write_files(tmp_path / "no-table", without_table))
    without_image = {name: data for name, data in complete.items() if name != "train/s03_red.png"}
    with pytest.raises(InputError, match=r"s03_red\.png"):
        real_fields.main(weights, write_files(tmp_path / "no-red", without_image))
    rare = competition({"a": "0 25", "b": "0", "c": "25 3"}, (), side=SIDE)
    with pytest.raises(InputError, match=r"no label has at least 3 positives and a negative in the 3 samples"):
        real_fields.main(weights, write_files(tmp_path / "rare", rare))


@pytest.mark.skipif(not REAL.exists(), reason="no real fields")
def test_the_table_of_the_real_fields_is_read() -> None:
    with open_places([REAL]) as archive:
        ids, truth = real_fields.read_truth(archive)
    known = pd.read_csv(REAL / "train.csv", dtype=str).set_index("Id")["Target"].str.split()
    assert ids == known.index.tolist()
    assert [set(row.nonzero()[0].astype(str)) for row in truth] == list(map(set, known))
    assert len(real_fields.scored_labels(truth)) > 5
