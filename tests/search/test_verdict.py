"""A search does not fool itself: equally good trials have no winner, and their gain is what luck is said to give.

Simulated predictions, in which the truth is known: trials of one quality differ by their seeds alone.
"""

import numpy as np
import pytest

from pipeline.core.params import Objective, Score
from pipeline.search.objectives import score
from pipeline.search.verdict import Comparison, Luck, compare_outer, luck
from tests.fixtures.searches import EqualTrials

SEARCHES, TRIALS, FOLDS, SEEDS = 80, 8, 2, 3
SETTINGS = Score(resamples=100, confidence=0.95, seed=0)
NOISES = [(0.0, 0.2), (0.3, 0.2), (0.3, 0.6)]
"""Standard deviations of a seed's effect on a label and on a sample."""
OBJECTIVES: list[Objective] = ["average_precision", "loss"]


def search(
    seed: int, noise: tuple[float, float], objective: Objective, winners_quality: float = 1.5
) -> tuple[Comparison, Luck, float]:
    """One simulated search of equal trials; the third result is the winner's gain on the inner folds."""
    generator = np.random.default_rng(seed)
    inner, outer = EqualTrials(generator, 40, *noise), EqualTrials(generator, 20, *noise)
    trials = [inner.train(1.5, FOLDS) for _ in range(TRIALS)]
    winner, default = ([outer.train(quality) for _ in range(SEEDS)] for quality in (winners_quality, 1.5))
    compared = compare_outer(objective, winner, default, SETTINGS)
    variance = compared.seed_variance / FOLDS
    simulated = luck(objective, trials, 0, SETTINGS, pruned=0, seed_variance=variance)
    scores = [score(objective, trial) for trial in trials]
    return compared, simulated, max(scores) - scores[0]


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_equal_trials_are_called_equal_and_their_gain_is_luck(objective: Objective, noise: tuple[float, float]) -> None:
    found = [search(seed, noise, objective) for seed in range(SEARCHES)]
    assert np.mean([compared.is_ahead for compared, _, _ in found]) <= 0.05
    assert np.mean([compared.difference.high < 0 for compared, _, _ in found]) <= 0.05
    gain, expected = (np.mean(values) for values in ([one[2] for one in found], [one[1].expected for one in found]))
    assert gain > 0
    assert expected == pytest.approx(gain, rel=0.35)
    assert 0.35 < np.mean([simulated.chance for _, simulated, _ in found]) < 0.7


def test_a_clearly_better_winner_is_ahead() -> None:
    found = [search(seed, (0.3, 0.2), "average_precision", winners_quality=4)[0] for seed in range(10)]
    assert np.mean([compared.is_ahead for compared in found]) >= 0.9
    assert all(compared.winner.value > compared.default.value for compared in found)


def test_one_prediction_as_winner_and_default_differs_by_nothing() -> None:
    trials = EqualTrials(np.random.default_rng(0), 20, 0, 0)
    same = [trials.train(1.5)] * SEEDS
    compared = compare_outer("average_precision", same, same, SETTINGS)
    assert compared.difference.low == pytest.approx(0, abs=1e-12) == compared.difference.high
    assert compared.seed_variance == pytest.approx(0, abs=1e-12)
    assert not compared.is_ahead
    simulated = luck("average_precision", same, 0, SETTINGS, pruned=0, seed_variance=0)
    assert simulated == Luck(0, 1)


def test_what_seeds_differ_by_widens_the_interval() -> None:
    narrow, wide = (
        [search(seed, (seed_sd, 0.1), "average_precision")[0].difference for seed in range(8)] for seed_sd in (0, 1)
    )
    widths = [np.mean([found.high - found.low for found in each]) for each in (narrow, wide)]
    assert widths[1] > 2 * widths[0]


def test_pruned_trials_are_further_draws() -> None:
    inner = EqualTrials(np.random.default_rng(3), 40, 0, 0.5)
    trials = [inner.train(1.5, FOLDS) for _ in range(12)]
    few, more, all_complete = (
        luck("average_precision", trials[:count], 0, SETTINGS, pruned=pruned, seed_variance=0).expected
        for count, pruned in ((4, 0), (4, 8), (12, 0))
    )
    assert few < more
    assert more == pytest.approx(all_complete, rel=0.25)


def test_independent_errors_have_the_expected_maximum_of_normal_numbers() -> None:
    """With one trial and many pruned ones, the maximum of k normal numbers: 1.54 standard deviations for k = 10."""
    trials = [EqualTrials(np.random.default_rng(0), 20, 0, 0).train(1.5)]
    many = Score(resamples=4000, confidence=0.95, seed=0)
    simulated = luck("loss", trials, 0, many, pruned=9, seed_variance=4)
    assert simulated.expected == pytest.approx(2 * 1.54, rel=0.05)
