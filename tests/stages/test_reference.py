"""The training samples as the first network sees them: its embeddings, in the order of folds.csv."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML

from pipeline.core import params, paths
from pipeline.data.fold_table import read_folds
from pipeline.evaluation.reference_file import load_reference
from pipeline.inference.channel_statistics import channel_statistics
from pipeline.inference.embedding import image_features
from pipeline.inference.fold_model import FoldModel
from pipeline.models import checkpoint
from pipeline.models.network import Network
from pipeline.models.provenance import Provenance
from pipeline.sources.packed_array import open_images
from pipeline.stages import reference
from tests.fixtures.models import CLASSICAL, FROZEN, TINY
from tests.fixtures.runs import write_run

COMMITTED = Path("params.yaml").resolve()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose first model is a small network."""
    monkeypatch.chdir(tmp_path)
    settings = YAML(typ="safe").load(COMMITTED)
    settings["models"] = {"a-forest": {"kind": "classical"}, "network": TINY.model_dump(mode="json")}
    settings["machine"]["predict_batch"] = 7
    YAML(typ="safe").dump(settings, Path("params.yaml"))
    write_run()
    paths.REFERENCE.unlink()
    torch.manual_seed(0)
    checkpoint.save(paths.model("network", params.load().folds.ids[0]), Network(TINY), TINY, Provenance())
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_it_describes_every_training_sample_by_the_first_network() -> None:
    reference.main()
    found = load_reference(paths.REFERENCE)
    samples, fold = read_folds(), params.load().folds.ids[0]
    assert (found.model, found.fold) == ("network", fold)
    assert found.is_of(paths.model("network", fold))
    assert found.ids.tolist() == samples["id"].tolist()
    assert found.targets.tolist() == samples["target"].tolist()
    np.testing.assert_array_equal(found.held_out, samples["fold"] == fold)
    images = open_images(params.load().data.sources[0])[samples["row"].to_numpy()]
    np.testing.assert_allclose(found.statistics, channel_statistics(images), rtol=1e-5, atol=1e-5)
    network, recipe = checkpoint.load(paths.model("network", fold))
    with torch.no_grad():
        expected = image_features(network, FoldModel(network, recipe).to_input(images)).numpy()
    np.testing.assert_allclose(found.vectors, expected, rtol=1e-4, atol=1e-5)
    assert np.isfinite(found.places).all()
    assert len(np.unique(found.places, axis=0)) == len(samples)
    before = paths.REFERENCE.read_bytes()
    reference.main()
    assert paths.REFERENCE.read_bytes() == before


def test_without_a_network_the_first_model_will_do() -> None:
    assert reference.choose_model({"b": CLASSICAL, "a": CLASSICAL}) == "b"
    assert reference.choose_model({"b": CLASSICAL, "a": FROZEN, "c": TINY}) == "a"


def test_similar_samples_are_close_on_the_map_and_some_are_left_out_if_there_are_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = np.random.default_rng(0)
    centres = 10 * generator.standard_normal((4, 12))
    kinds = np.arange(120) % 4
    vectors = (centres[kinds] + generator.standard_normal((120, 12))).astype(np.float32)
    places = reference.map_places(vectors, 0)
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (kinds[distances.argmin(axis=1)] == kinds).all()
    monkeypatch.setattr(reference, "MAPPED", 50)
    assert np.isfinite(reference.map_places(vectors, 0)).all(axis=1).sum() == 50
    assert np.isnan(reference.map_places(vectors[:2], 0)).all()
