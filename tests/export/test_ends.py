"""Both ends of the decision path: views as ``predict`` makes them, and the decision rule itself."""

import numpy as np
import numpy.typing as npt
import pytest
import torch

from pipeline.core.params import Blending
from pipeline.evaluation.blending import Blender
from pipeline.evaluation.calibration import Calibration
from pipeline.evaluation.decision_rule import DecisionRule
from pipeline.export.ends import Decision, ViewMaker

RANDOM = np.random.default_rng(0)
FOLDS, VIEWS, SAMPLES = (2, 3), 2, 5


def probabilities(*shape: int) -> npt.NDArray[np.float32]:
    """Of any size, including those that float32 cannot tell from 0 and 1."""
    return (1 / (1 + np.exp(-6 * RANDOM.standard_normal(shape)))).astype(np.float32)


@pytest.mark.parametrize("kind", ["probabilities", "logits", "weights", "ranks"])
def test_the_rule_gives_the_same_probabilities(kind: Blending) -> None:
    reference = probabilities(2, 40, 28)
    rule = DecisionRule(
        Blender(kind, np.array([0.3, 0.7]), reference),
        Calibration(2.5, RANDOM.standard_normal(28)),
        np.full(28, 0.5),
    )
    found = [probabilities(VIEWS, SAMPLES, 28) for _ in range(sum(FOLDS))]
    by_network = np.stack([own.mean(axis=0) for own in found])
    members = np.stack([by_network[:2].mean(axis=0), by_network[2:].mean(axis=0)])
    _, expected, _ = rule.apply(members)
    decision = Decision(rule, FOLDS, VIEWS)
    got = decision(*(torch.from_numpy(own.reshape(-1, 28)) for own in found))
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), expected, atol=2e-6)


def test_views_and_sizes_are_made_as_predict_makes_them() -> None:
    images = RANDOM.integers(0, 256, (2, 4, 8, 8), dtype=np.uint8)
    large, small = ViewMaker(8, (8, 4), ("identity", "flip_rot90"))(torch.from_numpy(images))
    turned = np.rot90(images[..., ::-1], axes=(2, 3))
    assert np.array_equal(large.numpy(), np.concatenate([images, turned]))
    halves = (images.reshape(2, 4, 4, 2, 4, 2).sum(axis=(3, 5), dtype=np.int64) + 2) // 4
    assert np.array_equal(small.numpy(), np.concatenate([halves, np.rot90(halves[..., ::-1], axes=(2, 3))]))
