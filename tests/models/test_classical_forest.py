"""The forest against scikit-learn, its weight file, and the whole classical model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.ensemble import ExtraTreesRegressor
from torch import Tensor

from pipeline.core.errors import InputError
from pipeline.inference.attention_maps import WINDOWS, label_maps
from pipeline.inference.probabilities import VIEWS, probabilities
from pipeline.models import checkpoint
from pipeline.models.checkpoint import build
from pipeline.models.classical import FEATURES, LEAF, LEAVES, SURE, TREES, FeatureForest, ForestHead, extract_features
from pipeline.models.network import Network
from pipeline.models.provenance import Provenance
from tests.fixtures.models import CLASSICAL, TINY


def drawn(count: int, seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random((count, 6))).float()


def labelled(features: Tensor) -> Tensor:
    targets = torch.zeros(len(features), 28)
    targets[:, 3] = (features[:, 0] > 0.5).float()
    targets[:, 21] = (features[:, 5] + features[:, 2] > 1).float()
    return targets


def oracle(features: Tensor) -> ExtraTreesRegressor:
    forest = ExtraTreesRegressor(TREES, min_samples_leaf=LEAF, max_leaf_nodes=LEAVES, random_state=0)
    return forest.fit(features.numpy(), labelled(features).numpy())


def grown(seed: int = 0, samples: int = 80) -> ForestHead:
    head = ForestHead(6, seed)
    features = drawn(samples, 0)
    head.fit(features, labelled(features))
    return head


def test_it_predicts_what_scikit_learn_predicts() -> None:
    new, forest = drawn(300, 1), oracle(drawn(80, 0))
    found = grown()(new).sigmoid()
    assert found.shape == (300, 28)
    np.testing.assert_allclose(found.numpy(), forest.predict(new.numpy()).clip(SURE, 1 - SURE), atol=1e-6)
    np.testing.assert_allclose(grown().importance.numpy(), forest.feature_importances_, atol=1e-7)
    assert np.abs(found.numpy()[:, 3] - labelled(new)[:, 3].numpy()).mean() < 0.1


def test_values_next_to_a_threshold_go_the_way_that_they_go_in_double_precision() -> None:
    forest = oracle(drawn(80, 0))
    roots = [(tree.tree_.feature[0], tree.tree_.threshold[0]) for tree in forest.estimators_]
    near = np.array([threshold for _, threshold in roots]).astype(np.float32)
    around = np.stack([np.nextafter(near, np.float32(-1)), near, np.nextafter(near, np.float32(2))])
    rows = np.full((3, len(roots), 6), 0.5, np.float32)
    for at, (feature, _) in enumerate(roots):
        rows[:, at, feature] = around[:, at]
    shown = rows.reshape(-1, 6)
    expected = forest.predict(shown).clip(SURE, 1 - SURE)
    np.testing.assert_allclose(grown()(torch.from_numpy(shown)).sigmoid().numpy(), expected, atol=1e-6)


def test_the_seed_decides_the_trees() -> None:
    assert torch.equal(grown(0).threshold, grown(0).threshold)
    assert not torch.equal(grown(0).threshold[:50], grown(1).threshold[:50])
    assert len(grown(20260101120000).root) == TREES  # more than scikit-learn takes


def test_a_tree_has_no_more_leaves_than_it_may() -> None:
    features = torch.from_numpy(np.random.default_rng(0).normal(size=(6_000, 6))).float()
    head = ForestHead(6, 0)
    head.fit(features, (torch.from_numpy(np.random.default_rng(1).random((6_000, 28))) < 0.5).float())
    assert len(head.root) == TREES
    assert len(head.feature) == TREES * (2 * LEAVES - 1)
    assert sum(tensor.nbytes for tensor in head.state_dict().values()) <= 131.1e6


def images(count: int) -> Tensor:
    """Every other one has its protein in the nucleus, the rest around it."""
    side, random = 64, np.random.default_rng(0)
    rows, columns = np.mgrid[:side, :side]
    distance = np.hypot(rows - 40, columns - 24)
    cell, nucleus = distance < 18, distance < 8
    found = random.integers(0, 10, (count, 4, side, side))
    for position, image in enumerate(found):
        image[0] += 150 * (nucleus if position % 2 else cell & ~nucleus)
        image[1] += 200 * nucleus
        image[2:] += 100 * cell
    return torch.from_numpy(found.astype(np.uint8))


def fitted() -> FeatureForest:
    model = build(CLASSICAL).eval()
    assert isinstance(model, FeatureForest)
    targets = torch.zeros(20, 28)
    targets[1::2, 0] = 1
    targets[::2, 25] = 1
    model.forest.fit(model.head_features(images(20)), targets)
    return model


def test_the_model_extracts_features_and_tells_patterns_apart() -> None:
    model = fitted()
    shown = images(20)
    np.testing.assert_array_equal(model.head_features(shown)[3].numpy(), extract_features(shown[3].numpy()))
    p = model(shown).sigmoid()
    assert (p[1::2, 0] > 0.9).all()
    assert (p[::2, 0] < 0.1).all()
    assert p[:, 5].max() == pytest.approx(SURE)
    named = dict(part.rsplit(" ", 1) for part in model.most_important(len(FEATURES)).split(", "))
    assert set(named) == set(FEATURES)
    assert sum(map(float, named.values())) == pytest.approx(1, abs=0.15)
    assert isinstance(build(TINY), Network)


def test_a_file_brings_it_back(tmp_path: Path) -> None:
    model = fitted()
    checkpoint.save(tmp_path / "a.safetensors", model, CLASSICAL, Provenance())
    checkpoint.save(tmp_path / "b.safetensors", fitted(), CLASSICAL, Provenance())
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    again, recipe = checkpoint.load(tmp_path / "a.safetensors")
    assert recipe == CLASSICAL
    assert torch.equal(again(images(6)), model(images(6)))


def test_a_file_of_other_features_is_refused(tmp_path: Path) -> None:
    model = FeatureForest(0)
    model.forest = ForestHead(len(FEATURES) - 1, 0)
    checkpoint.save(tmp_path / "older.safetensors", model, CLASSICAL, Provenance())
    with pytest.raises(InputError, match="its weights do not fit this version's models"):
        checkpoint.load(tmp_path / "older.safetensors")


def test_one_view_says_what_all_say() -> None:
    model, shown = fitted(), images(20)
    turned = probabilities(model, [(shown, shown)], views=list(VIEWS), precision="fp32")
    np.testing.assert_array_equal(turned, probabilities(model, [(shown, shown)], precision="fp32"))
    mean = torch.stack([model(VIEWS[view](shown)).sigmoid() for view in VIEWS]).mean(dim=0)
    np.testing.assert_allclose(turned, mean.numpy(), atol=0.01)


def test_a_file_without_trees_is_refused(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "empty.safetensors", build(CLASSICAL), CLASSICAL, Provenance())
    with pytest.raises(InputError, match="its weights do not fit this version's models"):
        checkpoint.load(tmp_path / "empty.safetensors")


@pytest.mark.parametrize(
    ("name", "value"), [("left", 0), ("right", 10**6), ("root", -1), ("feature", len(FEATURES)), ("share", torch.nan)]
)
def test_a_file_whose_nodes_are_no_trees_is_refused(tmp_path: Path, name: str, value: float) -> None:
    model = fitted()
    model.forest.get_buffer(name)[-1] = value
    checkpoint.save(tmp_path / "damaged.safetensors", model, CLASSICAL, Provenance())
    with pytest.raises(InputError, match="its weights do not fit this version's models"):
        checkpoint.load(tmp_path / "damaged.safetensors")


def test_occlusion_is_by_how_much_the_logit_sinks_when_a_window_is_black() -> None:
    model, shown, labels = fitted(), images(3), torch.tensor([25, 0, 25])
    found = label_maps(model, shown, labels, WINDOWS)
    assert set(found) == {"occlusion"}
    side = -(-64 // WINDOWS)
    expected = torch.zeros(3, 64, 64)
    full = model(shown)[torch.arange(3), labels]
    for row in range(0, 64, side):
        for column in range(0, 64, side):
            covered = shown.clone()
            covered[:, 0, row : row + side, column : column + side] = 0
            sunk = full - model(covered)[torch.arange(3), labels]
            expected[:, row : row + side, column : column + side] = sunk.clamp_min(0)[:, None, None]
    expected = torch.nn.functional.adaptive_avg_pool2d(expected, WINDOWS)
    assert (expected.amax(dim=(1, 2)) > 0).all()
    torch.testing.assert_close(found["occlusion"], expected / expected.amax(dim=(1, 2), keepdim=True))
