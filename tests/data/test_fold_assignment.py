"""Folds: no group is ever split, and every label is spread as evenly as its groups allow."""

from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold
from sklearn.model_selection import StratifiedGroupKFold

from pipeline.core.errors import InputError
from pipeline.core.labels import LABELS, target_matrix
from pipeline.data.fold_assignment import assign_folds, audit_folds, exchange, groups_by_label, leaked_share, stratify

REAL = Path("../shared/hpa/labels")

Truth = npt.NDArray[np.bool_]
Groups = npt.NDArray[np.str_]
Folds = npt.NDArray[np.int64]


def random_samples(seed: int, samples: int, groups: int) -> tuple[Truth, Groups]:
    generator = np.random.default_rng(seed)
    truth = generator.random((samples, len(LABELS))) < np.geomspace(0.4, 0.01, len(LABELS))
    truth[:, 0] |= ~truth.any(axis=1)
    return truth, generator.integers(groups, size=samples).astype(np.str_)


def label_imbalance(truth: Truth, folds: Folds) -> npt.NDArray[np.float64]:
    """Largest relative deviation of a fold's positives from the mean over folds, by label."""
    held = np.array([truth[folds == fold].sum(axis=0) for fold in np.unique(folds)])
    return np.asarray(np.abs(held / held.mean(axis=0) - 1).max(axis=0))


def spread(amounts: npt.NDArray[np.float64], assigned: Folds, folds: int) -> float:
    """What `exchange` lowers: the squared relative deviations from an even spread."""
    even = amounts.sum(axis=0) / folds
    held = np.array([amounts[assigned == fold].sum(axis=0) for fold in range(folds)])
    return float((((held - even)[:, even > 0] / even[even > 0]) ** 2).sum())


@given(
    seed=st.integers(0, 2**32 - 1), samples=st.integers(20, 120), groups=st.integers(12, 60), folds=st.integers(2, 5)
)
@settings(max_examples=25, deadline=None)
def test_no_group_is_split_no_fold_is_empty_and_the_order_of_rows_is_nothing(
    seed: int, samples: int, groups: int, folds: int
) -> None:
    truth, group = random_samples(seed, samples, groups)
    assigned = assign_folds(truth, group, folds, seed=0)
    assert leaked_share(group, assigned) == 0
    assert np.unique(assigned).tolist() == list(range(folds))
    order = np.random.default_rng(seed).permutation(samples)
    np.testing.assert_array_equal(assign_folds(truth[order], group[order], folds, seed=0), assigned[order])


def test_the_seed_changes_the_folds() -> None:
    truth, groups = random_samples(0, 600, 300)
    folds = [assign_folds(truth, groups, 3, seed) for seed in (0, 1)]
    # Of two folds drawn without regard for each other, a third is the same.
    assert (folds[0] == folds[1]).mean() == pytest.approx(1 / 3, abs=0.1)


def test_the_rarest_label_is_spread_first() -> None:
    # All nine have label 0; spread in their order, those with label 1 as well would end up in one fold.
    amounts = np.array([[1, 1, 1], [1, 0, 1], [1, 0, 1]] * 3, dtype=np.float64)
    assigned = stratify(amounts, 3)
    assert sorted(assigned[[0, 3, 6]]) == [0, 1, 2]
    assert np.bincount(assigned).tolist() == [3, 3, 3]


def test_no_move_of_a_group_would_make_the_folds_more_even() -> None:
    truth, groups = random_samples(3, 240, 80)
    assigned = assign_folds(truth, groups, 3, seed=0)
    samples = np.column_stack([truth, np.ones(240)])
    ours = spread(samples, assigned, 3)
    for group, fold in product(np.unique(groups), range(3)):
        assert spread(samples, np.where(groups == group, fold, assigned), 3) >= ours - 1e-7


def test_as_many_folds_as_groups_is_the_limit() -> None:
    truth, groups = random_samples(0, 12, 1_000_000)
    assert sorted(assign_folds(truth, groups, 12, seed=0)) == list(range(12))
    with pytest.raises(InputError, match="13 folds but only 12 groups"):
        assign_folds(truth, groups, 13, seed=0)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_exchange_ends_where_no_swap_or_move_helps(seed: int) -> None:
    generator = np.random.default_rng(seed)
    amounts = np.column_stack([generator.integers(0, 3, (10, 3)), generator.integers(1, 4, 10)]).astype(np.float64)
    start = stratify(amounts, 2)
    end = exchange(amounts, start, generator)
    best = spread(amounts, end, 2)
    assert best <= spread(amounts, start, 2) + 1e-9
    for one, other in product(range(10), repeat=2):
        for changed in ([one], [one, other]):
            if len({int(end[group]) for group in changed}) == len(changed):
                neighbour = end.copy()
                neighbour[changed] = 1 - neighbour[changed]
                assert spread(amounts, neighbour, 2) >= best - 1e-7


def test_folds_of_few_groups_are_near_the_best_there_are() -> None:
    for seed in range(10):
        generator = np.random.default_rng(seed)
        amounts = np.column_stack([generator.integers(0, 3, (10, 3)), generator.integers(1, 4, 10)]).astype(np.float64)
        every = [spread(amounts, np.array(assigned), 2) for assigned in product((0, 1), repeat=10)]
        ours = spread(amounts, exchange(amounts, stratify(amounts, 2), generator), 2)
        # Of all 1,024 assignments (each has a mirror image of the same spread) it is one of the five best.
        assert ours <= np.sort(every)[9]


def test_singletons_are_spread_as_evenly_as_by_iterative_stratification() -> None:
    truth, _ = random_samples(1, 600, 1)
    ours = assign_folds(truth, np.arange(600).astype(np.str_), 4, seed=0)
    theirs = np.empty(600, dtype=np.int64)
    splitter = MultilabelStratifiedKFold(4, shuffle=True, random_state=0)
    for fold, (_, held_out) in enumerate(splitter.split(truth, truth.astype(np.int64))):
        theirs[held_out] = fold
    assert label_imbalance(truth, ours).mean() <= label_imbalance(truth, theirs).mean()


@pytest.fixture(scope="module")
def real() -> tuple[Truth, Groups]:
    if not REAL.exists():
        pytest.skip("the real labels are not here")
    kaggle = pd.read_csv(REAL / "train.csv")
    external = pd.read_csv(REAL / "HPAv18RBGY_wodpl.csv")
    groups = [*kaggle["Id"], *external["Id"].str.split("_").str[0]]
    return target_matrix([*kaggle["Target"], *external["Target"]]), np.array(groups, dtype=np.str_)


def test_real_groups_are_spread_better_than_by_the_best_of_fifty_random_assignments(real: tuple[Truth, Groups]) -> None:
    truth, groups = real
    ours = assign_folds(truth, groups, 5, seed=0)
    assert leaked_share(groups, ours) == 0
    known = groups_by_label(truth, groups) >= 5
    imbalance = label_imbalance(truth, ours)[known]
    names, membership = np.unique(groups, return_inverse=True)
    by_chance = [
        label_imbalance(truth, np.random.default_rng(seed).integers(5, size=len(names))[membership])[known]
        for seed in range(50)
    ]
    assert imbalance.max() < min(chance.max() for chance in by_chance)
    assert imbalance.mean() < min(chance.mean() for chance in by_chance)


def test_the_rarest_real_label_is_spread_better_than_by_scikit_learn(real: tuple[Truth, Groups]) -> None:
    # scikit-learn stratifies one label only: the rarest, so that the comparison favours it. Its time grows with the
    # groups, so one in eight of them takes part.
    truth, groups = real
    _, membership = np.unique(groups, return_inverse=True)
    chosen = membership % 8 == 0
    truth, groups = truth[chosen], groups[chosen]
    rarest = np.where(groups_by_label(truth, groups) >= 5, truth.sum(axis=0), len(truth)).argmin()
    theirs = np.empty(len(truth), dtype=np.int64)
    splitter = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    for fold, (_, held_out) in enumerate(splitter.split(truth, truth[:, rarest], groups)):
        theirs[held_out] = fold
    ours = assign_folds(truth, groups, 5, seed=0)
    assert label_imbalance(truth, ours)[rarest] <= label_imbalance(truth, theirs)[rarest]


def test_the_audit_of_a_hand_worked_case() -> None:
    truth = np.zeros((6, len(LABELS)), dtype=np.bool_)
    truth[:, 0] = True
    truth[[0, 1, 2], 1] = True
    truth[5, 2] = True
    groups = np.array(["a", "a", "b", "c", "d", "d"])
    folds = np.array([0, 0, 1, 1, 0, 0])
    audit = audit_folds(truth, groups, folds)
    assert audit["held_out_share_with_group_in_training"] == 0
    assert audit["folds"] == {"0": {"samples": 4, "groups": 2}, "1": {"samples": 2, "groups": 2}}
    assert audit["labels"]["Nucleoplasm"] == {"positives": [4, 2], "groups": [2, 2]}
    assert audit["labels"]["Nuclear membrane"] == {"positives": [2, 1], "groups": [1, 1]}
    assert audit["labels"]["Nucleoli"] == {"positives": [1, 0], "groups": [1, 0]}
    # Labels 0 and 1 have two groups: 4 and 2 around 3, and 2 and 1 around 1.5, deviate by a third.
    assert audit["imbalance"] == {"labels": 2, "worst": pytest.approx(1 / 3), "mean": pytest.approx(1 / 3)}


def test_a_group_in_two_folds_counts_with_all_its_samples() -> None:
    groups = np.array(["a", "a", "a", "b", "c"])
    assert leaked_share(groups, np.array([0, 0, 1, 0, 1])) == pytest.approx(3 / 5)
