"""Coverage of the 95 % bootstrap intervals: ``python -m benchmarks.coverage [REPETITIONS]``.

Draws many data sets from a population whose macro-F1 is known, and counts how often the interval contains it. Fields
of one antibody share its labels, and the hit rate of a label differs between antibodies, so fields are strongly
dependent. ``coverage_95`` in the last line is the coverage for macro-F1 on data like those of the default run.
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
"""Groups that make up the population."""
CONCENTRATION = 1.5
"""Concentration (alpha + beta) of an antibody's hit rate; below 2, most antibodies have a rate near 0 or 1."""


@dataclass(frozen=True)
class Case:
    """A kind of data set.

    Attributes:
        name: as printed.
        groups: antibodies.
        rarest: proportion of the rarest label.
        hits: mean hit rate (recall).
    """

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
    """Draw decisions and truth, (N, 28), and the group of each sample, (N,), with 2 to 4 samples per group."""
    share = np.geomspace(0.4, case.rarest, len(LABELS))
    has = generator.random((groups, len(LABELS))) < share
    hits = generator.beta(CONCENTRATION * case.hits, CONCENTRATION * (1 - case.hits), has.shape)
    alarms = generator.beta(share / 2, 1 - share / 2, has.shape)
    group = np.repeat(np.arange(groups), generator.integers(2, 5, groups))
    truth = has[group]
    return generator.random(truth.shape) < np.where(has, hits, alarms)[group], truth, group


def true_f1(case: Case) -> npt.NDArray[np.float64]:
    """F1 of each label in the population, (28,)."""
    decisions, truth, _ = draw(case, POPULATION, np.random.default_rng(0))
    return f1_by_label(decisions, truth)


def covers(seed: int, case: Case, population_f1: npt.NDArray[np.float64]) -> tuple[bool, npt.NDArray[np.bool_]]:
    """Whether the intervals of one data set contain the population's macro-F1, and each label's F1, (28,)."""
    decisions, truth, group = draw(case, case.groups, np.random.default_rng(seed))
    groups = group.astype(np.str_)
    resampled = f1_resamples(decisions, truth, groups, resamples=RESAMPLES, seed=seed)
    estimate = float(f1_by_label(decisions, truth).mean())
    low, high = interval(resampled.mean(axis=1), estimate, CONFIDENCE)
    ends = label_intervals(resampled, decisions, truth, groups, CONFIDENCE)
    return bool(low <= population_f1.mean() <= high), (ends[:, 0] <= population_f1) & (population_f1 <= ends[:, 1])


def measure_coverage(case: Case, repetitions: int) -> dict[str, str | float]:
    """Share of data sets whose interval contains the true value, for macro-F1 and the labels."""
    work = partial(covers, case=case, population_f1=true_f1(case))
    seeds = range(1, repetitions + 1)
    covered = list(track(in_order(work, seeds, os.cpu_count() or 1), case.name, total=repetitions, unit="data sets"))
    macro = float(np.mean([macro for macro, _ in covered]))
    labels = np.mean([labels for _, labels in covered], axis=0)
    return {
        "data like": case.name,
        "groups": case.groups,
        "groups of the rarest label": round(case.groups * case.rarest, 1),
        "macro-F1": macro,
        "margin of error": 1.96 * np.sqrt(macro * (1 - macro) / repetitions),
        "labels, mean": float(labels.mean()),
        "labels, lowest": float(labels.min()),
    }


def main() -> None:
    """Measure every case and print the table."""
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else REPETITIONS
    table = pd.DataFrame([measure_coverage(case, repetitions) for case in CASES])
    cases = dict(zip(table["data like"], table["macro-F1"], strict=True))
    figures = {
        "coverage_95": table["macro-F1"][0],
        "n": repetitions,
        "labels": table["labels, mean"][0],
        "cases": cases,
    }
    report(table, figures)


if __name__ == "__main__":
    run_main(main)
