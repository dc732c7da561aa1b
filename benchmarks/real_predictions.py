"""How the ensemble stage's procedure does on real competitors' probabilities, beside its alternatives and its peers.

    python -m benchmarks.real_predictions --scores scores.npz --truth truth.csv --peer their-final=submission.csv

The scores are arrays (rows, 28) by network name, with their ``ids``; the truth covers some of the rows. Everything that
is learned is cross-fitted over five random folds of the rows with truth, several times over. The last line is JSON.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.interleaved import report
from pipeline.core.entry import run_main
from pipeline.core.errors import InputError
from pipeline.core.labels import target_matrix
from pipeline.core.params import Ensemble, load
from pipeline.core.progress import track
from pipeline.evaluation.blending import BLENDINGS
from pipeline.evaluation.calibration import CALIBRATIONS
from pipeline.evaluation.decision_rule import cross_fit, fit_rule
from pipeline.evaluation.intervals import f1_resamples, interval
from pipeline.evaluation.metrics import Bools, Floats, f1_by_label
from pipeline.evaluation.thresholds import POLICIES

FOLDS = 5
FEWEST = 3
"""Positives that a label needs to count: with fewer, some folds learn from one positive or none."""
RESAMPLES = 300
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Contender:
    """One line of the table: some of the networks under some settings, or given decisions."""

    kind: str
    name: str
    networks: slice
    settings: Ensemble


def contenders(networks: list[str], settings: Ensemble) -> Iterator[Contender]:
    """The default, its alternatives one setting at a time, two simple procedures, and every network alone."""

    def variant(**changes: object) -> Ensemble:
        return settings.model_copy(update=changes)

    everyone = slice(None)
    yield Contender("default", "as params.yaml says", everyone, settings)
    plain = {"blend": "probabilities", "calibration": "none"}
    yield Contender("simple", f"plain mean, constant {settings.fixed}", everyone, variant(**plain, thresholds="fixed"))
    naive = variant(**plain, thresholds="per_label", shrinkage=0.0)
    yield Contender("simple", "plain mean, best F1 of each label", everyone, naive)
    for policy in POLICIES:
        yield Contender("thresholds", policy, everyone, variant(thresholds=policy))
        yield Contender("uncalibrated", policy, everyone, variant(thresholds=policy, calibration="none"))
    for blend in BLENDINGS:
        yield Contender("blend", blend, everyone, variant(blend=blend))
    for calibration in CALIBRATIONS:
        yield Contender("calibration", calibration, everyone, variant(calibration=calibration))
    for position, network in enumerate(networks):
        yield Contender("network", network, slice(position, position + 1), settings)


def decide_often(contender: Contender, members: Floats, truth: Bools, repeats: int) -> list[Bools]:
    """Cross-fitted decisions on all rows, once per random split into folds; the same splits for every contender."""
    fit = partial(fit_rule, settings=contender.settings)
    splits = [np.random.default_rng(seed).permutation(len(truth)) % FOLDS for seed in range(repeats)]
    return [cross_fit(members[contender.networks], truth, folds, fit).decisions for folds in splits]


def rate(decided: list[Bools], truth: Bools) -> tuple[float, float, npt.NDArray[np.float64]]:
    """Macro-F1 over the labels that count, its standard deviation over the splits, and its value in each resample."""
    counted = truth.sum(axis=0) >= FEWEST
    scores = [f1_by_label(decisions, truth)[counted].mean() for decisions in decided]
    rows = np.arange(len(truth)).astype(np.str_)
    resampled = [
        f1_resamples(decisions, truth, rows, resamples=RESAMPLES, seed=0)[:, counted].mean(axis=1)
        for decisions in decided
    ]
    return float(np.mean(scores)), float(np.std(scores)), np.mean(resampled, axis=0)


def read_scores(path: Path) -> tuple["pd.Index[str]", dict[str, Floats]]:
    """The ids and each network's probabilities."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: np.asarray(archive[name]) for name in archive.files}
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not an npz file ({error})") from None
    if "ids" not in arrays or len(arrays) < 2:
        raise InputError(f"{path}: it needs ids and at least one array of probabilities")
    return pd.Index(arrays.pop("ids")), arrays


def read_targets(path: Path, column: str) -> "pd.Series[str]":
    """The targets of a truth or of a submission, by id; an empty prediction stays empty."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        return table.set_index("Id")[column]
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path} is not a CSV with the columns Id and {column} ({error})") from None


def read_decisions(path: Path, ids: "pd.Index[str]") -> Bools:
    """What a submission decided on these rows, (N, 28)."""
    targets = read_targets(path, "Predicted")
    if not ids.isin(targets.index).all():
        raise InputError(f"{path}: it lacks rows that the truth has")
    chosen = targets.loc[ids]
    decisions = np.zeros((len(ids), 28), dtype=np.bool_)
    decisions[(chosen != "").to_numpy()] = target_matrix(chosen[chosen != ""])
    return decisions


def main() -> None:
    """Print the table and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scores", type=Path, required=True, metavar="NPZ")
    parser.add_argument("--truth", type=Path, required=True, metavar="CSV")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=CSV", help="a submission to compare with")
    parser.add_argument("--repeats", type=int, default=10, help="random splits into folds")
    arguments = parser.parse_args()
    run_main(lambda: compare(arguments.scores, arguments.truth, arguments.peer, arguments.repeats))


def compare(scores: Path, truth_path: Path, peers: list[str], repeats: int) -> None:
    """Rate every contender and peer on the rows whose truth is known."""
    ids, networks = read_scores(scores)
    targets = read_targets(truth_path, "Target")
    rows = ids.get_indexer(pd.Index(targets.index))
    if (rows < 0).any():
        raise InputError(f"{truth_path}: {int((rows < 0).sum())} of its ids are not in {scores}")
    truth = target_matrix(targets)
    members = np.stack([probabilities[rows] for probabilities in networks.values()])
    lines = list(contenders(list(networks), load().ensemble))
    rated = [
        (line.kind, line.name, *rate(decide_often(line, members, truth, repeats), truth))
        for line in track(lines, "procedures", unit="procedures")
    ]
    for peer in peers:
        name, _, path = peer.partition("=")
        rated.append(("peer", name, *rate([read_decisions(Path(path), pd.Index(targets.index))], truth)))
    score, resampled = rated[0][2], rated[0][4]
    table = pd.DataFrame(
        {
            "kind": kind,
            "name": name,
            "macro_f1": own,
            "sd_of_splits": spread,
            "low": interval(draws, own, CONFIDENCE)[0],
            "high": interval(draws, own, CONFIDENCE)[1],
            "behind_default": score - own,
            "behind_low": np.quantile(resampled - draws, (1 - CONFIDENCE) / 2),
            "behind_high": np.quantile(resampled - draws, (1 + CONFIDENCE) / 2),
        }
        for kind, name, own, spread, draws in rated
    )
    low, high = interval(resampled, score, CONFIDENCE)
    figures = {
        "cross_fitted_macro_f1": score,
        "low": low,
        "high": high,
        "rows": len(truth),
        "labels": int((truth.sum(axis=0) >= FEWEST).sum()),
        "repeats": repeats,
        "peers": {name: own for kind, name, own, _, _ in rated if kind == "peer"},
    }
    report(table, figures)


if __name__ == "__main__":
    main()
