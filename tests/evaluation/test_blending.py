"""Several models as one: means, ranks, and weights that are learned."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from pipeline.evaluation.blending import BLENDINGS, Blender, fit_blender, learn_weights
from pipeline.evaluation.metrics import Bools, Floats

KINDS = st.sampled_from(BLENDINGS)


def scored_models(seed: int, noises: tuple[float, ...], samples: int = 300, labels: int = 5) -> tuple[Floats, Bools]:
    """Models that see the same truth through noise of their own."""
    generator = np.random.default_rng(seed)
    truth = generator.random((samples, labels)) < 0.3
    logits = [4 * truth - 2.5 + noise * generator.standard_normal(truth.shape) for noise in noises]
    return expit(np.stack(logits)).astype(np.float32), truth


def useless(seed: int, samples: int = 300, labels: int = 5) -> Floats:
    probabilities: Floats = np.random.default_rng([seed, 1]).random((1, samples, labels)).astype(np.float32)
    return probabilities


def test_means_are_taken_on_the_scale_named() -> None:
    members = np.array([[[0.2, 0.5]], [[0.8, 0.9]]], dtype=np.float32)
    halves = np.array([0.5, 0.5])
    np.testing.assert_allclose(Blender("probabilities", halves, members).apply(members), [[0.5, 0.7]], rtol=1e-6)
    # Odds of 1 and 9 have a geometric mean of 3.
    np.testing.assert_allclose(Blender("logits", halves, members).apply(members), [[0.5, 0.75]], rtol=1e-6)
    unequal = Blender("probabilities", np.array([0.75, 0.25]), members)
    np.testing.assert_allclose(unequal.apply(members), [[0.35, 0.6]], rtol=1e-6)


def test_certainty_of_both_kinds_has_a_mean_logit() -> None:
    certain = np.array([[[0.0, 1.0]], [[1.0, 1.0]]], dtype=np.float32)
    blended = Blender("logits", np.array([0.5, 0.5]), certain).apply(certain)
    np.testing.assert_allclose(blended, [[0.5, 1.0]], rtol=1e-6)


def test_ranks_forget_all_but_the_order() -> None:
    members, truth = scored_models(0, (1, 2))
    bent = np.stack([members[0], members[1] ** 3])
    blends = [fit_blender("ranks", each, truth, weight_l2=1).apply(each) for each in (members, bent)]
    np.testing.assert_array_equal(blends[0].argsort(axis=0, kind="stable"), blends[1].argsort(axis=0, kind="stable"))


def test_equal_models_blend_to_themselves() -> None:
    members, truth = scored_models(1, (1,))
    twice = np.concatenate([members, members])
    for kind in BLENDINGS:
        blended = fit_blender(kind, twice, truth, weight_l2=1).apply(twice)
        np.testing.assert_allclose(blended, members[0], rtol=1e-5, err_msg=kind)


@given(seed=st.integers(0, 2**32 - 1), kind=KINDS)
@settings(max_examples=15, deadline=None)
def test_permuting_the_rows_permutes_the_blend(seed: int, kind: str) -> None:
    members, truth = scored_models(seed, (1, 1.5, 3), samples=60)
    order = np.random.default_rng(seed).permutation(60)
    before = fit_blender(kind, members, truth, weight_l2=1).apply(members)  # type: ignore[arg-type]
    after = fit_blender(kind, members[:, order], truth[order], weight_l2=1).apply(members[:, order])  # type: ignore[arg-type]
    np.testing.assert_allclose(after, before[order], atol=1e-3)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_weights_are_shares(seed: int) -> None:
    members, truth = scored_models(seed, (1, 2, 4), samples=60)
    weights = learn_weights(members, truth, weight_l2=1)
    assert (weights >= 0).all()
    assert weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("seed", range(5))
def test_a_useless_model_gets_no_weight_at_all(seed: int) -> None:
    members, truth = scored_models(seed, (1.0, 1.2))
    weights = learn_weights(np.concatenate([members, useless(seed)]), truth, weight_l2=1)
    assert weights[2] == 0
    assert (weights[:2] > 0.2).all()


def test_a_misleading_model_gets_none_and_alone_it_gets_all() -> None:
    members, truth = scored_models(0, (1.0,))
    assert learn_weights(np.concatenate([members, 1 - members]), truth, weight_l2=1).tolist() == [1, 0]
    assert learn_weights(1 - members, truth, weight_l2=1).tolist() == [1]


def test_without_a_penalty_the_weights_are_those_of_scikit_learns_regression() -> None:
    members, truth = scored_models(2, (1, 1.3, 1.6))
    pairs = logit(members.astype(np.float64)).reshape(3, -1).T
    by_sklearn = LogisticRegression(C=np.inf, tol=1e-8).fit(pairs, truth.ravel()).coef_[0]
    assert (by_sklearn > 0).all()
    np.testing.assert_allclose(learn_weights(members, truth, weight_l2=0), by_sklearn / by_sklearn.sum(), atol=2e-3)


def test_the_penalty_makes_weights_equal_and_gives_way_to_many_samples() -> None:
    members, truth = scored_models(3, (1, 1.2, 1.2))
    np.testing.assert_allclose(learn_weights(members, truth, weight_l2=1e6), [1 / 3] * 3, atol=1e-3)
    free = learn_weights(members, truth, weight_l2=0)
    drawn = [
        learn_weights(np.tile(members, (1, times, 1)), np.tile(truth, (times, 1)), weight_l2=3) for times in (1, 50)
    ]
    assert np.abs(drawn[1] - free).sum() < np.abs(drawn[0] - free).sum() / 2
