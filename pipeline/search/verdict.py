"""Is the winner of a search ahead of the default, and how much of its inner gain was luck?

The best of many trials scores too high on the samples that chose it, even if all trials are equally good. Here the
outer fold judges, which no trial saw, and the inner gain stands beside the gain that luck alone would give.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats

from pipeline.core.params import Objective
from pipeline.core.params import Score as Bootstrap
from pipeline.evaluation.ranking import Doubles
from pipeline.search.objectives import Predicted, resampled, score


@dataclass(frozen=True)
class Estimate:
    """A score or a difference of scores, with its confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """The winner and the default on the outer fold.

    Attributes:
        winner: mean score over the seeds.
        default: the same of the default.
        difference: winner minus default, paired.
        seed_variance: variance of a score between seeds that more samples would not remove.
    """

    winner: Estimate
    default: Estimate
    difference: Estimate
    seed_variance: float

    @property
    def is_ahead(self) -> bool:
        """Whether the interval of the difference is above 0."""
        return self.difference.low > 0


@dataclass(frozen=True)
class Luck:
    """The gain over the default that the best of equally good trials would have.

    Attributes:
        expected: its mean.
        chance: probability that it is at least the observed gain.
    """

    expected: float
    chance: float


def compare_outer(
    objective: Objective, winner: Sequence[Predicted], default: Sequence[Predicted], settings: Bootstrap
) -> Comparison:
    """Compare two sections on the outer fold, each trained with the same number of seeds.

    The error of the difference has two parts: the choice of samples, by a paired bootstrap over groups, and the
    training, by the variance between seeds. They are added, and the interval is that of Student's t with the degrees of
    freedom of Welch and Satterthwaite (Biometrics Bulletin 1946). The part of a seed's effect that differs between
    samples is in both, so the interval is slightly too wide rather than too narrow.

    Args:
        objective: what is scored.
        winner: predictions of the outer fold, one for each seed.
        default: the same of the default.
        settings: of the bootstrap.
    """
    scores = np.array([[score(objective, one) for one in runs] for runs in (winner, default)])  # 2, R
    drawn = resampled(objective, [*winner, *default], settings).reshape(*scores.shape, -1)  # 2, R, B
    means, by_seed = drawn.mean(axis=1), scores.var(axis=1, ddof=1)
    groups, seeds = len(np.unique(winner[0].groups)), scores.shape[1]

    def estimate(value: float, sampled: Doubles, variances: Sequence[float], most: float = np.inf) -> Estimate:
        found = _interval(value, float(sampled.var(ddof=1)), groups, variances, seeds, settings.confidence)
        return Estimate(found.value, found.low, min(found.high, most))

    best = 1 if objective == "average_precision" else 0
    # The effect of a seed on single samples, which shrinks with their number, is what the bootstrap shows of it.
    own = (drawn - means[:, None]).var(axis=2, ddof=1).mean() * seeds / (seeds - 1)
    return Comparison(
        estimate(scores[0].mean(), means[0], by_seed[:1].tolist(), best),
        estimate(scores[1].mean(), means[1], by_seed[1:].tolist(), best),
        estimate(scores[0].mean() - scores[1].mean(), means[0] - means[1], by_seed.tolist()),
        max(float(by_seed.mean() - own), 0.0),
    )


def luck(
    objective: Objective,
    trials: Sequence[Predicted],
    default: int,
    settings: Bootstrap,
    *,
    pruned: int,
    seed_variance: float,
) -> Luck:
    """Simulate the gain of the best trial over the default if all trials were equally good.

    The error of a trial's score is the deviation in a bootstrap resample, drawn for all trials together, so that trials
    with similar predictions stay similar; plus an effect of its seed. Pruned trials have no score. They count as
    further trials whose errors are as large and as correlated as those of the others on average.

    Args:
        objective: what is scored.
        trials: out-of-fold predictions of the inner folds by each complete trial.
        default: position of the default among them.
        settings: of the bootstrap.
        pruned: number of pruned trials.
        seed_variance: variance of a trial's score between seeds, beside what the bootstrap shows.
    """
    scores = np.array([score(objective, one) for one in trials])
    drawn = resampled(objective, trials, settings)
    errors = drawn - drawn.mean(axis=1, keepdims=True)  # T, B
    shared = errors.mean(axis=0)
    own = float((errors - shared).var() * len(trials) / max(len(trials) - 1, 1))
    generator = np.random.default_rng(settings.seed)
    further = shared + np.sqrt(own) * generator.standard_normal((pruned, errors.shape[1]))
    everything = np.concatenate([errors, further])
    everything += np.sqrt(seed_variance) * generator.standard_normal(everything.shape)
    gains = everything.max(axis=0) - everything[default]
    return Luck(float(gains.mean()), float((gains >= scores.max() - scores[default]).mean()))


def _interval(
    value: float, sampling: float, groups: int, by_seed: Sequence[float], seeds: int, confidence: float
) -> Estimate:
    """The interval of Student's t for a sum of errors.

    Args:
        value: the estimate.
        sampling: its variance by the choice of groups.
        groups: their number.
        by_seed: variances between the seeds of each section that it is computed from.
        seeds: number of seeds of each.
        confidence: nominal coverage, in 0..1.
    """
    parts = [(sampling, groups - 1), *((variance / seeds, seeds - 1) for variance in by_seed)]
    total = sum(variance for variance, _ in parts)
    if total == 0:
        return Estimate(value, value, value)
    freedom = total**2 / sum(variance**2 / degrees for variance, degrees in parts)
    half = float(scipy.stats.t.ppf((1 + confidence) / 2, freedom)) * float(np.sqrt(total))
    return Estimate(float(value), float(value - half), float(value + half))
