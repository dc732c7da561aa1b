"""The ensemble stage on probabilities of real competitors, compared with alternatives and with submissions.

    python -m benchmarks.real_predictions --scores scores.npz --truth truth.csv --peer their-final=submission.csv
    python -m benchmarks.real_predictions --run FOLDER

The npz file contains ``ids`` and, for each network, an array (rows, 28) of probabilities; the truth covers some of the
rows. With ``--run`` they are the out-of-fold probabilities of a finished run of this pipeline. All fitting is
cross-fitted over five random folds of the rows (of the groups, in a run), repeated with several random splits. The last
line is JSON.
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
from pipeline.core import paths
from pipeline.core.entry import run_main
from pipeline.core.errors import InputError
from pipeline.core.labels import target_matrix
from pipeline.core.params import Ensemble, load
from pipeline.core.progress import track
from pipeline.data.fold_table import read_folds
from pipeline.evaluation.blending import BLENDINGS
from pipeline.evaluation.calibration import CALIBRATIONS
from pipeline.evaluation.decision_rule import cross_fit, fit_rule
from pipeline.evaluation.intervals import f1_resamples, interval
from pipeline.evaluation.metrics import Bools, Floats, f1_by_label
from pipeline.evaluation.prediction_files import load_predictions
from pipeline.evaluation.thresholds import POLICIES
from pipeline.stages.ensemble import stitch

FOLDS = 5
MIN_POSITIVES = 3
"""Labels with fewer positives are not scored: some folds would be fitted to one positive or none."""
SHRINKAGES = (2.0, 5.0, 10.0, 20.0)
"""Tried with the policies that shrink the labels' own thresholds."""
RESAMPLES = 300
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Judged:
    """Probabilities of several networks, by name, (N, 28) each; truth (N, 28), and the group of each row (N,)."""

    networks: dict[str, Floats]
    truth: Bools
    groups: npt.NDArray[np.intp]


@dataclass(frozen=True)
class Procedure:
    """One row of the table: some of the networks with settings of the ensemble stage."""

    kind: str
    name: str
    networks: slice
    settings: Ensemble


def procedures(networks: list[str], settings: Ensemble) -> Iterator[Procedure]:
    """The default, two simple procedures, the default with one setting changed, and each network alone."""

    def variant(**changes: object) -> Ensemble:
        return settings.model_copy(update=changes)

    all_networks = slice(None)
    yield Procedure("default", "as in params.yaml", all_networks, settings)
    mean = {"blend": "probabilities", "calibration": "none"}
    fixed = variant(**mean, thresholds="fixed")
    yield Procedure("simple", f"mean, threshold {settings.fixed_threshold}", all_networks, fixed)
    unshrunk = variant(**mean, thresholds="per_label", shrinkage=0.0)
    yield Procedure("simple", "mean, best F1 of each label", all_networks, unshrunk)
    for policy in POLICIES:
        yield Procedure("thresholds", policy, all_networks, variant(thresholds=policy))
        yield Procedure("uncalibrated", policy, all_networks, variant(thresholds=policy, calibration="none"))
    for policy in ("per_label", "bagged"):
        for shrinkage in SHRINKAGES:
            name = f"{policy}, shrinkage {shrinkage:g}"
            yield Procedure("shrinkage", name, all_networks, variant(thresholds=policy, shrinkage=shrinkage))
    for blend in BLENDINGS:
        yield Procedure("blend", blend, all_networks, variant(blend=blend))
    for calibration in CALIBRATIONS:
        yield Procedure("calibration", calibration, all_networks, variant(calibration=calibration))
    for position, network in enumerate(networks):
        yield Procedure("network", network, slice(position, position + 1), settings)


def cross_fit_repeatedly(procedure: Procedure, judged: Judged, repeats: int) -> list[Bools]:
    """Cross-fitted decisions on all rows, for each random split into folds; all procedures share the splits."""
    fit = partial(fit_rule, settings=procedure.settings)
    members = np.stack(list(judged.networks.values())[procedure.networks])
    groups = judged.groups.max() + 1
    splits = [(np.random.default_rng(seed).permutation(groups) % FOLDS)[judged.groups] for seed in range(repeats)]
    return [cross_fit(members, judged.truth, folds, fit).decisions for folds in splits]


def score(by_split: list[Bools], judged: Judged) -> tuple[float, float, npt.NDArray[np.float64]]:
    """Mean macro-F1 over the scored labels, its standard deviation over the splits, and its value in each resample."""
    truth, groups = judged.truth, judged.groups.astype(np.str_)
    counted = truth.sum(axis=0) >= MIN_POSITIVES
    scores = [f1_by_label(decisions, truth)[counted].mean() for decisions in by_split]
    resampled = [
        f1_resamples(decisions, truth, groups, resamples=RESAMPLES, seed=0)[:, counted].mean(axis=1)
        for decisions in by_split
    ]
    return float(np.mean(scores)), float(np.std(scores)), np.mean(resampled, axis=0)


def read_scores(path: Path) -> tuple["pd.Index[str]", dict[str, Floats]]:
    """Read the ids and the probabilities of each network."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: np.asarray(archive[name]) for name in archive.files}
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not an npz file ({error})") from None
    if "ids" not in arrays or len(arrays) < 2:
        raise InputError(f"{path}: it must contain ids and at least one array of probabilities")
    return pd.Index(arrays.pop("ids")), arrays


def read_targets(path: Path, column: str) -> "pd.Series[str]":
    """Read the targets of a truth file or a submission, by id; an empty prediction stays empty."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        return table.set_index("Id")[column]
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path} is not a CSV with the columns Id and {column} ({error})") from None


def read_submission(peer: str, ids: "pd.Index[str]") -> tuple[str, Bools]:
    """Read a submission given as NAME=CSV: its name, and its decisions for these rows, (N, 28)."""
    name, _, file = peer.partition("=")
    path = Path(file)
    targets = read_targets(path, "Predicted")
    if not ids.isin(targets.index).all():
        raise InputError(f"{path}: rows of the truth file are missing")
    chosen = targets.loc[ids]
    decisions = np.zeros((len(ids), 28), dtype=np.bool_)
    decisions[(chosen != "").to_numpy()] = target_matrix(chosen[chosen != ""])
    return name, decisions


def read_judged(scores: Path, truth_path: Path) -> tuple[Judged, "pd.Index[str]"]:
    """Read the probabilities of the rows whose truth is known, each its own group, and the ids of these rows."""
    ids, networks = read_scores(scores)
    targets = read_targets(truth_path, "Target")
    rows = ids.get_indexer(pd.Index(targets.index))
    if (rows < 0).any():
        raise InputError(f"{truth_path}: {int((rows < 0).sum())} of its ids are not in {scores}")
    known = {name: probabilities[rows] for name, probabilities in networks.items()}
    return Judged(known, target_matrix(targets), np.arange(len(targets))), pd.Index(targets.index)


def read_run(folder: Path) -> Judged:
    """Read the out-of-fold probabilities of each model, the truth and the groups of a finished run."""
    samples = read_folds(folder / paths.FOLDS)
    networks = {}
    for model in load(folder / "params.yaml").models:
        by_fold = [load_predictions(folder / paths.predictions(model, fold)) for fold in samples["fold"].unique()]
        networks[model] = stitch(by_fold, samples["id"])
    return Judged(networks, target_matrix(samples["target"]), np.unique(samples["group"], return_inverse=True)[1])


def main() -> None:
    """Print the table and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scores", type=Path, metavar="NPZ", help="ids and probabilities")
    parser.add_argument("--truth", type=Path, metavar="CSV", help="columns Id and Target")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=CSV", help="a submission to compare with")
    parser.add_argument("--run", type=Path, metavar="FOLDER", help="a finished run, in place of scores and truth")
    parser.add_argument("--repeats", type=int, default=10, help="random splits into folds")
    arguments = parser.parse_args()
    if arguments.run and not (arguments.scores or arguments.truth or arguments.peer):
        run_main(lambda: compare(read_run(arguments.run), [], arguments.repeats))
    elif arguments.scores and arguments.truth and not arguments.run:
        run_main(lambda: compare_files(arguments.scores, arguments.truth, arguments.peer, arguments.repeats))
    else:
        parser.error("give either --scores and --truth, or --run")


def compare_files(scores: Path, truth: Path, peers: list[str], repeats: int) -> None:
    """Compare on the probabilities and the truth in these files."""
    judged, ids = read_judged(scores, truth)
    # Before the fits, which take minutes: a wrong file fails at once.
    compare(judged, [read_submission(peer, ids) for peer in peers], repeats)


def compare(judged: Judged, submissions: list[tuple[str, Bools]], repeats: int) -> None:
    """Score every procedure and submission on the same rows, and print the table."""
    tried = list(procedures(list(judged.networks), load().ensemble))
    scored = [
        (one.kind, one.name, *score(cross_fit_repeatedly(one, judged, repeats), judged))
        for one in track(tried, "procedures", unit="procedures")
    ]
    scored += [("peer", name, *score([decisions], judged)) for name, decisions in submissions]
    default, resampled = scored[0][2], scored[0][4]
    table = pd.DataFrame(
        {
            "kind": kind,
            "name": name,
            "macro_f1": own,
            "sd_of_splits": spread,
            "low": interval(draws, own, CONFIDENCE)[0],
            "high": interval(draws, own, CONFIDENCE)[1],
            "behind_default": default - own,
            "behind_low": np.quantile(resampled - draws, (1 - CONFIDENCE) / 2),
            "behind_high": np.quantile(resampled - draws, (1 + CONFIDENCE) / 2),
        }
        for kind, name, own, spread, draws in scored
    )
    low, high = interval(resampled, default, CONFIDENCE)
    figures = {
        "cross_fitted_macro_f1": default,
        "low": low,
        "high": high,
        "rows": len(judged.truth),
        "labels": int((judged.truth.sum(axis=0) >= MIN_POSITIVES).sum()),
        "repeats": repeats,
        "peers": {name: own for kind, name, own, _, _ in scored if kind == "peer"},
    }
    report(table, figures)


if __name__ == "__main__":
    main()
