"""Embeddings: what each kind of head decides by, written out."""

import numpy as np
import pytest
import torch

from pipeline.core import params
from pipeline.core.errors import InputError
from pipeline.inference.embedding import embed, image_features
from pipeline.models.classical import FeatureForest
from pipeline.models.heads import pool_stages
from pipeline.models.network import Network
from tests.fixtures.models import CLASSICAL, FROZEN, TINY


def images(count: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 4, 32, 32), dtype=torch.uint8, generator=generator)


def network(model: params.BackboneModel) -> Network:
    torch.manual_seed(0)
    return Network(model).eval()


@pytest.mark.parametrize("head", ["label_queries", "hard_label_queries"])
def test_label_queries_give_their_evidence_weighted_by_probability(head: str) -> None:
    model = network(TINY.model_copy(update={"head": head, "pyramid": 8}))
    queries = model.queries
    assert queries is not None
    torch.nn.init.normal_(queries.weight)
    shown = images()
    found = image_features(model, shown)
    assert found.shape == (3, 8)
    # The evidence of a label adds up to its logit, less the bias.
    levels = model.levels(shown)
    places = [
        queries.norm(one.flatten(2).transpose(1, 2)) + own for one, own in zip(levels, queries.level, strict=True)
    ]
    every = torch.cat(places, dim=1)
    attended = queries.attend(queries.queries.expand(3, -1, -1), every, every)[0]
    logits = model(shown)
    torch.testing.assert_close((attended * queries.weight).sum(-1) + queries.bias, logits)
    expected = sum(logits.sigmoid()[:, [label]] * attended[:, label] * queries.weight[label] for label in range(28))
    torch.testing.assert_close(found, expected)


def test_pooled_heads_give_the_pooled_maps_that_the_linear_layer_sees() -> None:
    model = network(TINY)
    assert model.pooled is not None
    found = image_features(model, images())
    torch.testing.assert_close(model.pooled.linear(found), model(images()))
    assert not model.pooled.dropout._forward_pre_hooks, "nothing is left behind in the model"


def test_frozen_and_classical_models_give_the_features_of_their_head() -> None:
    frozen = network(FROZEN)
    torch.testing.assert_close(image_features(frozen, images()), pool_stages(frozen.feature_maps(images())))
    forest = FeatureForest(CLASSICAL.seed).eval()
    np.testing.assert_array_equal(image_features(forest, images()), forest.head_features(images()))


def test_a_model_that_computes_no_numbers_is_named() -> None:
    model = network(TINY)
    assert embed(model, images(), precision="fp32", name="tiny").dtype == np.float32
    with torch.no_grad():
        next(iter(model.parameters()))[0] = torch.nan
    with pytest.raises(InputError, match=r"tiny: its predictions are not finite"):
        embed(model, images(), precision="fp32", name="tiny")
