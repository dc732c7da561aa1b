"""Thresholds: exact, and never chosen on the samples they are judged on."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from pipeline.core.labels import LABELS
from pipeline.core.params import Ensemble, Policy
from pipeline.evaluation.metrics import Bools, Floats, Thresholds, curve_macro_f1, macro_f1, match_counts
from pipeline.evaluation.thresholds import POLICIES, best_threshold, choose_thresholds, decide, expected_f1
from tests.fixtures.models import ENSEMBLE


def with_policy(policy: Policy, **changes: object) -> Ensemble:
    return ENSEMBLE.model_copy(update={"thresholds": policy, **changes})


def scored_samples(seed: int, samples: int = 60, labels: int = 4, levels: int = 0) -> tuple[Floats, Bools]:
    """Random truth and probabilities that know something of it; with ``levels``, many are equal."""
    generator = np.random.default_rng(seed)
    truth = generator.random((samples, labels)) < generator.uniform(0, 0.6, labels)
    probabilities = np.clip(0.3 * truth + generator.uniform(0, 0.7, truth.shape), 0, 1)
    if levels:
        probabilities = np.round(probabilities * levels) / levels
    return probabilities.astype(np.float32), truth


@given(seed=st.integers(0, 2**32 - 1), labels=st.integers(1, 3), levels=st.sampled_from([0, 3, 10]))
@settings(max_examples=25, deadline=None)
def test_the_exact_search_equals_brute_force(seed: int, labels: int, levels: int) -> None:
    probabilities, truth = scored_samples(seed, 15, labels, levels)
    found = macro_f1(probabilities >= best_threshold(probabilities, truth), truth)
    everything = max(macro_f1(probabilities >= cut, truth) for cut in np.unique(probabilities))
    assert found == pytest.approx(everything, abs=1e-12)


def test_the_threshold_lies_halfway_between_the_samples_it_parts() -> None:
    probabilities = np.array([[0.9], [0.8], [0.5], [0.1]])
    assert best_threshold(probabilities, np.array([[True], [True], [False], [False]])) == pytest.approx(0.65)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_neighbouring_numbers_are_parted_as_well(kind: type[np.floating[Any]]) -> None:
    # The middle of these two rounds to the lower one, whose last bit is even.
    low = kind(0.5)
    pair: Floats = np.array([[np.nextafter(low, kind(1))], [low]])
    assert pair.dtype == kind
    # As an array, which is compared in double precision; a bare float would be rounded to the array's.
    threshold = np.array([best_threshold(pair, np.array([[True], [False]]))])
    assert (pair >= threshold).tolist() == [[True], [False]]


@given(seed=st.integers(0, 2**32 - 1), levels=st.sampled_from([0, 5]), policy=st.sampled_from(POLICIES))
@settings(max_examples=40, deadline=None)
def test_permuting_the_rows_changes_no_threshold(seed: int, levels: int, policy: Policy) -> None:
    probabilities, truth = scored_samples(seed, levels=levels)
    order = np.random.default_rng(seed).permutation(len(truth))
    choose = partial(choose_thresholds, settings=with_policy(policy))
    np.testing.assert_allclose(
        choose(probabilities[order], truth[order]), choose(probabilities, truth), rtol=0, atol=1e-12
    )


def test_a_tie_does_not_hang_on_the_last_digit_of_a_sum() -> None:
    # Thresholds of 0.375 and 0 have the same macro-F1 here, but added up in another order one is larger by a rounding.
    probabilities = np.array([[0, 0], [0.25, 0.25], [0.5, 0], [0.25, 0.75]])
    truth = np.array([[False, False], [False, False], [True, True], [True, True]])
    assert best_threshold(probabilities, truth) == best_threshold(probabilities[::-1], truth[::-1]) == 0.375


def test_constant_policies_use_one_threshold() -> None:
    probabilities, truth = scored_samples(0)
    assert choose_thresholds(probabilities, truth, with_policy("fixed")).tolist() == [0.4] * 4
    shared = choose_thresholds(probabilities, truth, with_policy("global"))
    assert shared.tolist() == [best_threshold(probabilities, truth)] * 4


def test_labels_thresholds_shrink_towards_the_global_one_by_their_positives() -> None:
    probabilities, truth = scored_samples(0, samples=200)
    truth[:, 3] = False
    shared = best_threshold(probabilities, truth)
    own = [best_threshold(probabilities[:, [label]], truth[:, [label]]) for label in range(3)]

    def choose(shrinkage: float) -> Thresholds:
        return choose_thresholds(probabilities, truth, with_policy("per_label", shrinkage=shrinkage))

    assert choose(0).tolist() == [*own, shared], "a label without positives has none of its own"
    assert choose(1e12) == pytest.approx([shared] * 4)
    positives = int(truth[:, 1].sum())
    assert choose(positives)[1] == pytest.approx((own[1] + shared) / 2)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_the_expected_f1_is_reached_by_truths_drawn_from_the_probabilities(seed: int) -> None:
    generator = np.random.default_rng(seed)
    levels = generator.random(6)
    probabilities = np.repeat(levels, 400)[:, None]
    truths = generator.random((30, len(probabilities))) < probabilities[:, 0]
    reached = [np.mean([f1_score(truth, probabilities[:, 0] >= cut) for truth in truths]) for cut in levels]
    assert expected_f1(probabilities)[0] == pytest.approx(max(reached), abs=0.02)


def test_half_of_the_expected_f1_is_the_best_threshold_of_calibrated_probabilities() -> None:
    generator = np.random.default_rng(0)
    probabilities = generator.beta(0.5, 2.0, size=(200_000, 1))
    truth = generator.random(probabilities.shape) < probabilities
    chosen = choose_thresholds(probabilities, truth, with_policy("expected", shrinkage=0.0))
    highest = macro_f1(probabilities >= best_threshold(probabilities, truth), truth)
    assert macro_f1(probabilities >= chosen, truth) == pytest.approx(highest, abs=1e-3)
    assert macro_f1(probabilities >= 2 * chosen, truth) < highest - 0.05


def test_the_counts_policy_gives_each_label_as_often_as_it_is_true() -> None:
    probabilities, truth = scored_samples(0, samples=200)
    truth[:, 3] = False
    thresholds = choose_thresholds(probabilities, truth, with_policy("counts"))
    np.testing.assert_array_equal((probabilities >= thresholds).sum(axis=0), truth.sum(axis=0))
    assert thresholds[3] > 1, "a label that no sample has is never given, to other samples neither"
    given = choose_thresholds(probabilities, truth, with_policy("counts", proportions={LABELS[3]: 0.25}))
    np.testing.assert_array_equal((probabilities >= given).sum(axis=0), [*truth[:, :3].sum(axis=0), 50])


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_counts_are_matched_as_the_proportions_say(seed: int) -> None:
    probabilities, _ = scored_samples(seed, samples=50)
    counts = np.random.default_rng(seed).integers(0, 51, 4)
    given_to = (probabilities >= match_counts(probabilities, counts / 50)).sum(axis=0)
    np.testing.assert_array_equal(given_to, counts)


def test_equal_probabilities_stay_together() -> None:
    probabilities = np.array([[0.9], [0.5], [0.5], [0.1]])
    assert (probabilities >= match_counts(probabilities, np.array([0.5]))).ravel().tolist() == [True, True, True, False]


@given(seed=st.integers(0, 2**32 - 1), threshold=st.floats(0, 2))
@settings(max_examples=25, deadline=None)
def test_no_row_is_left_empty(seed: int, threshold: float) -> None:
    probabilities, _ = scored_samples(seed)
    decisions = decide(probabilities, np.full(4, threshold))
    assert decisions.any(axis=1).all()
    alone = ~(probabilities >= threshold).any(axis=1)
    np.testing.assert_array_equal(decisions[~alone], (probabilities >= threshold)[~alone])
    np.testing.assert_array_equal(decisions[alone].argmax(axis=1), probabilities[alone].argmax(axis=1))
    assert (decisions[alone].sum(axis=1) == 1).all()


def test_the_curve_gives_each_label_to_its_share_of_the_samples() -> None:
    probabilities, truth = scored_samples(2, samples=100)
    counts = truth.sum(axis=0)
    decisions = np.zeros_like(truth)
    for label, count in enumerate(counts):
        decisions[np.argsort(-probabilities[:, label])[:count], label] = True
    assert curve_macro_f1(probabilities, truth, counts / 100) == pytest.approx(macro_f1(decisions, truth))
