"""Balance of the folds compared with scikit-learn's splitters: ``python -m benchmarks.folds [FOLDER]``.

FOLDER contains the competition's train.csv and HPAv18RBGY_wodpl.csv, the labels of the public images. Without FOLDER,
label sets are drawn with the competition's frequencies, in groups of simulated sizes. The deviation of a label is the
largest relative difference between a fold's positives and an equal share; labels with fewer groups than folds are left
out.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold
from sklearn.model_selection import StratifiedGroupKFold

from benchmarks.interleaved import report
from pipeline.core.labels import target_matrix
from pipeline.data.fold_assignment import assign_folds, groups_by_label, leaked_share
from pipeline.simulation.competition import LABEL_SETS

FOLDS = 5
ASSIGNMENTS = 50
SIMULATED = 20_000
"""Samples to draw if no real labels are given."""

Truth = npt.NDArray[np.bool_]
Groups = npt.NDArray[np.str_]
Folds = npt.NDArray[np.int64]


def read_labels(folder: Path) -> tuple[Truth, Groups]:
    """Read the real labels: truth (N, 28), and the group of each sample (N,): its antibody, or itself if unknown."""
    kaggle, atlas = pd.read_csv(folder / "train.csv"), pd.read_csv(folder / "HPAv18RBGY_wodpl.csv")
    groups = [*kaggle["Id"], *atlas["Id"].str.split("_").str[0]]
    return target_matrix([*kaggle["Target"], *atlas["Target"]]), np.array(groups, dtype=np.str_)


def draw_labels(samples: int, seed: int) -> tuple[Truth, Groups]:
    """Draw label sets with the competition's frequencies; each group of 1 to 11 samples shares one."""
    generator = np.random.default_rng(seed)
    table = pd.read_csv(LABEL_SETS, comment="#")
    groups = np.repeat(np.arange(samples), generator.integers(1, 12, samples))[:samples]
    drawn = generator.choice(len(table), int(groups[-1]) + 1, p=table["count"] / table["count"].sum())
    return target_matrix(table["target"].iloc[drawn[groups]]), groups.astype(np.str_)


def deviations(truth: Truth, folds: Folds) -> npt.NDArray[np.float64]:
    """Largest relative deviation of a fold's positives from the mean over folds, by label; 0 without positives."""
    held = np.array([truth[folds == fold].sum(axis=0) for fold in range(FOLDS)])
    even = held.mean(axis=0)
    return np.asarray(np.abs(held - even).max(axis=0) / np.maximum(even, 1 / FOLDS))


def split(splitter: StratifiedGroupKFold | MultilabelStratifiedKFold, *arrays: npt.NDArray[np.generic]) -> Folds:
    """The fold of each sample, from a splitter with scikit-learn's interface."""
    folds = np.empty(len(arrays[0]), dtype=np.int64)
    for fold, (_, held_out) in enumerate(splitter.split(*arrays)):
        folds[held_out] = fold
    return folds


def best_random(truth: Truth, groups: Groups, counted: npt.NDArray[np.bool_]) -> Folds:
    """The random assignment of groups with the smallest mean deviation over the labels in ``counted``, (28,)."""
    names, membership = np.unique(groups, return_inverse=True)
    drawn = [np.random.default_rng(seed).integers(FOLDS, size=len(names)) for seed in range(ASSIGNMENTS)]
    best = min(drawn, key=lambda folds: deviations(truth, folds[membership])[counted].mean())
    return np.asarray(best[membership])


def compare(truth: Truth, groups: Groups) -> pd.DataFrame:
    """A row per method: largest and mean deviation, the rarest label's deviation, leaked share, seconds."""
    held = groups_by_label(truth, groups)
    counted = held >= FOLDS
    rarest = int(np.where(counted, truth.sum(axis=0), len(truth)).argmin())
    integers = truth.astype(np.int64)
    ungrouped = np.arange(len(truth)).astype(np.str_)
    multilabel = MultilabelStratifiedKFold(FOLDS, shuffle=True, random_state=0)
    one_label = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    methods: dict[str, Callable[[], Folds]] = {
        "this project": lambda: assign_folds(truth, groups, FOLDS, seed=0),
        "best of 50 random": lambda: best_random(truth, groups, counted),
        "StratifiedGroupKFold, rarest label": lambda: split(one_label, truth, integers[:, rarest], groups),
        "this project, without groups": lambda: assign_folds(truth, ungrouped, FOLDS, seed=0),
        "MultilabelStratifiedKFold, without groups": lambda: split(multilabel, truth, integers),
    }
    rows = []
    for method, make in methods.items():
        started = time.perf_counter()
        folds = make()
        seconds = time.perf_counter() - started
        found = deviations(truth, folds)
        rows.append(
            {
                "method": method,
                "worst": found[counted].max(),
                "mean": found[counted].mean(),
                "rarest": found[rarest],
                "leaked": leaked_share(groups, folds),
                "seconds": seconds,
            }
        )
    return pd.DataFrame(rows)


def main() -> None:
    """Print the comparison."""
    truth, groups = read_labels(Path(sys.argv[1])) if len(sys.argv) > 1 else draw_labels(SIMULATED, seed=0)
    table = compare(truth, groups)
    figures = {"samples": len(truth), "groups": len(np.unique(groups))}
    report(table, figures | {str(row.pop("method")): row for row in table.to_dict("records")})


if __name__ == "__main__":
    main()
