"""How often a 95 % interval holds the truth: ``python -m benchmarks.coverage [REPETITIONS]``.

Samples are drawn from a population whose macro-F1 is known, thousands of times, and the interval of each drawing is
checked against it. The fields of an antibody share its labels, and how well a label is found differs from antibody to
antibody, so fields are anything but independent. The last line's ``coverage_95`` is that of macro-F1 on samples like
those of the default run.
"""

import os
import sys
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.interleaved import report
from pipeline.core.entry import run_main
from pipeline.core.labels import LABELS
from pipeline.core.progress import track
from pipeline.evaluation.intervals import f1_resamples, interval, label_intervals
from pipeline.evaluation.metrics import Bools, f1_by_label
from pipeline.simulation.competition_archive import in_order

REPETITIONS = 1000
RESAMPLES = 400
CONFIDENCE = 0.95
POPULATION = 100_000
"""Groups from which the truth is taken."""
EVENNESS = 1.5
"""Of the beta distribution of an antibody's hit rate; below 2 most antibodies are found nearly always or never."""


@dataclass(frozen=True)
class Case:
    """A kind of samples: how many groups, the share of the rarest label, how often a label is found."""

    name: str
    groups: int
    rarest: float
    hits: float


CASES = (
    Case("like the default run", 161, 0.033, 0.5),
    Case("better decisions", 161, 0.033, 0.8),
    Case("more groups, rarer labels", 600, 0.01, 0.6),
    Case("2 groups of the rarest label", 161, 0.0125, 0.5),
)


def draw(case: Case, groups: int, generator: np.random.Generator) -> tuple[Bools, Bools, npt.NDArray[np.intp]]:
    """Decisions and truth, (N, 28), and the group of each sample, (N,), in groups of 2 to 4."""
    share = np.geomspace(0.4, case.rarest, len(LABELS))
    has = generator.random((groups, len(LABELS))) < share
    hits = generator.beta(EVENNESS * case.hits, EVENNESS * (1 - case.hits), has.shape)
    alarms = generator.beta(share / 2, 1 - share / 2, has.shape)
    group = np.repeat(np.arange(groups), generator.integers(2, 5, groups))
    truth = has[group]
    return generator.random(truth.shape) < np.where(has, hits, alarms)[group], truth, group


def true_f1(case: Case) -> npt.NDArray[np.float64]:
    """F1 of each label, (28,), in the population."""
    decisions, truth, _ = draw(case, POPULATION, np.random.default_rng(0))
    return f1_by_label(decisions, truth)


def covers(seed: int, case: Case, truth_known: npt.NDArray[np.float64]) -> tuple[bool, npt.NDArray[np.bool_]]:
    """Whether the intervals of one drawing hold the truth: that of macro-F1, and each label's, (28,)."""
    decisions, truth, group = draw(case, case.groups, np.random.default_rng(seed))
    groups = group.astype(np.str_)
    resampled = f1_resamples(decisions, truth, groups, resamples=RESAMPLES, seed=seed)
    estimate = float(f1_by_label(decisions, truth).mean())
    low, high = interval(resampled.mean(axis=1), estimate, CONFIDENCE)
    ends = label_intervals(resampled, decisions, truth, groups, CONFIDENCE)
    return bool(low <= truth_known.mean() <= high), (ends[:, 0] <= truth_known) & (truth_known <= ends[:, 1])


def measure_coverage(case: Case, repetitions: int) -> dict[str, str | float]:
    """The share of drawings whose interval holds the truth, for macro-F1 and the labels."""
    work = partial(covers, case=case, truth_known=true_f1(case))
    seeds = range(1, repetitions + 1)
    found = list(track(in_order(work, seeds, os.cpu_count() or 1), case.name, total=repetitions, unit="drawings"))
    macro = float(np.mean([macro for macro, _ in found]))
    labels = np.mean([labels for _, labels in found], axis=0)
    return {
        "samples like": case.name,
        "groups": case.groups,
        "of the rarest label": round(case.groups * case.rarest, 1),
        "macro-F1": macro,
        "noise": 1.96 * np.sqrt(macro * (1 - macro) / repetitions),
        "labels, mean": float(labels.mean()),
        "labels, least": float(labels.min()),
    }


def main() -> None:
    """Measure every case."""
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else REPETITIONS
    table = pd.DataFrame([measure_coverage(case, repetitions) for case in CASES])
    cases = dict(zip(table["samples like"], table["macro-F1"], strict=True))
    figures = {
        "coverage_95": table["macro-F1"][0],
        "n": repetitions,
        "labels": table["labels, mean"][0],
        "cases": cases,
    }
    report(table, figures)


if __name__ == "__main__":
    run_main(main)
