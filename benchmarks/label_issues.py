"""How many wrong annotations the table of label issues finds: ``python -m benchmarks.label_issues``.

    python -m benchmarks.label_issues --run FOLDER [--retrain]
    python -m benchmarks.label_issues --scores scores.npz --truth truth.csv

Annotations are made wrong on purpose: a share of the labels, all samples of a group alike, is removed, replaced by
another one, or joined by an additional one. A third of them each, but a sample keeps at least one label; new labels are
drawn by their frequency. Then blend and calibration are cross-fitted on the wrong annotations, and label issues are
found from these probabilities. What counts is (sample, label) pairs: precision is the share of the issues that had been
made wrong, recall the share of the wrong ones that are issues. The truth is taken to have no errors of its own; where
it has, precision is underestimated. ``first`` is the precision of as many of the most confident issues as are wrong.

- The probabilities are those of networks that were trained on the true labels: out-of-fold ones of a finished run
  (``--run``), or given ones (``--scores``, see ``benchmarks.real_predictions``). Networks that learn from wrong
  annotations predict worse, so these figures are upper bounds.
- ``--retrain`` also fits a model that learns from the wrong annotations: that of ``templates.frozen`` in params.yaml, a
  kernel head on the features of the pretrained network, without augmentation; beside it the same model fitted to the
  true labels.

Figures are means over random draws of the wrong annotations, which also determine the random split into five folds
where there is no run. Intervals are 95 % bootstrap intervals over groups. The last line is JSON.
"""

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from benchmarks.interleaved import report
from benchmarks.real_predictions import FOLDS, Judged, read_judged, read_run
from pipeline.core import hardware, params
from pipeline.core.entry import run_main
from pipeline.core.errors import InputError
from pipeline.core.progress import track
from pipeline.data.fold_table import read_folds
from pipeline.data.loader import Samples, closing_workers, ordered_batches
from pipeline.evaluation.decision_rule import cross_fit, fit_rule
from pipeline.evaluation.label_issues import find_label_issues
from pipeline.evaluation.metrics import Bools, Floats
from pipeline.models.heads import KernelHead
from pipeline.models.network import Network, autocast
from pipeline.models.pretrained import start_from_weights
from pipeline.sources.packed_array import open_images

SHARES = (0.02, 0.1)
RESAMPLES = 1000
CONFIDENCE = 0.95
KINDS = ("removed", "replaced", "added")

Folds = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Case:
    """One draw of wrong annotations: the issues, which of the (sample, label) pairs are wrong, and their confidence."""

    issues: Bools
    wrong: Bools
    confidence: Floats


def make_wrong(truth: Bools, groups: npt.NDArray[np.intp], share: float, generator: np.random.Generator) -> Bools:
    """Annotations, (N, 28), in which a share of the labels is wrong.

    Args:
        truth: (N, 28).
        groups: (N,). Samples of one group with the same labels get the same errors.
        share: of the labels; each is chosen with this probability.
        generator: of the draws.
    """
    given, frequency = truth.copy(), truth.mean(axis=0)
    units = np.unique(np.column_stack([groups, truth]), axis=0, return_inverse=True)[1]
    for unit in range(units.max() + 1):
        rows = np.flatnonzero(units == unit)
        labels = given[rows[0]].copy()
        for label in np.flatnonzero(truth[rows[0]]):
            if generator.random() >= share:
                continue
            kind = generator.choice(KINDS)
            if kind == "removed" and labels.sum() == 1:
                kind = "replaced"
            if kind != "removed":
                odds = frequency * ~(labels | truth[rows[0]])
                labels[generator.choice(len(odds), p=odds / odds.sum())] = True
            if kind != "added":
                labels[label] = False
        given[rows] = labels
    return given


def find(members: Floats, given: Bools, wrong: Bools, folds: Folds, ensemble: params.Ensemble) -> Case:
    """Blend and calibrate as the ensemble stage does, cross-fitted on the annotations, and find the label issues.

    Args:
        members: (M, N, 28).
        given: (N, 28), the annotations.
        wrong: (N, 28), which of them are wrong.
        folds: (N,).
        ensemble: the section.
    """
    # Thresholds play no part; a constant one costs nothing.
    fit = partial(fit_rule, settings=ensemble.model_copy(update={"thresholds": "fixed"}))
    probabilities = cross_fit(members, given, folds, fit).probabilities
    return Case(find_label_issues(probabilities, given), wrong, np.abs(given - probabilities))


def first_precision(case: Case) -> float:
    """The precision of the most confident issues, as many as there are wrong annotations."""
    ranked = np.argsort(-np.where(case.issues, case.confidence, -1).ravel(), kind="stable")
    return float(case.wrong.ravel()[ranked[: case.wrong.sum()]].mean())


def summarise(cases: list[Case], groups: npt.NDArray[np.intp]) -> dict[str, float]:
    """Precision and recall over all draws, with intervals."""
    issues, wrong = (np.stack([getattr(case, name) for case in cases]).sum(axis=2) for name in ("issues", "wrong"))
    hits = np.stack([case.issues & case.wrong for case in cases]).sum(axis=2)
    by_group = np.stack([np.bincount(groups, part.sum(axis=0)) for part in (hits, issues, wrong)])
    generator, size = np.random.default_rng(0), by_group.shape[1]
    drawn = by_group[:, generator.integers(size, size=(RESAMPLES, size))].sum(axis=2)  # 3, RESAMPLES
    found: dict[str, float] = {"issues": issues.sum() / len(cases), "wrong": wrong.sum() / len(cases)}
    for name, over in (("precision", 1), ("recall", 2)):
        low, high = np.quantile(drawn[0] / np.maximum(drawn[over], 1), ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
        estimate = by_group[0].sum() / max(by_group[over].sum(), 1)
        found |= {name: float(estimate), f"{name}_low": float(low), f"{name}_high": float(high)}
    return found | {"first": float(np.mean([first_precision(case) for case in cases]))}


class Refitted:
    """The frozen model of params.yaml on the training samples of the run in this folder, to fit to any annotations."""

    def __init__(self, recipe: params.FrozenModel, machine: params.Machine) -> None:
        """Compute the features, which do not depend on the annotations.

        Args:
            recipe: of the model.
            machine: the batch size.
        """
        table = read_folds()
        self.folds: Folds = table["fold"].to_numpy()
        images = {source: open_images(source) for source in table["source"].unique()}
        network = Network(recipe)
        start_from_weights(network, recipe)
        self.features = features(network.eval(), Samples(table, images, recipe.size), recipe, machine)

    def predict(self, given: Bools) -> Floats:
        """Out-of-fold probabilities of heads that were fitted to annotations, (1, N, 28)."""
        found = np.empty(given.shape, np.float32)
        targets = torch.from_numpy(given)
        for fold in np.unique(self.folds):
            held_out = torch.from_numpy(self.folds == fold)
            head = KernelHead(self.features.shape[1])
            head.fit(self.features[~held_out], targets[~held_out])
            found[held_out.numpy()] = head(self.features[held_out]).sigmoid().numpy()
        return found[None]


@torch.no_grad()
def features(network: Network, samples: Samples, recipe: params.FrozenModel, machine: params.Machine) -> torch.Tensor:
    """What the kernel head sees of each sample, (N, F)."""
    network.to(hardware.device())
    batches = ordered_batches(samples, machine.predict_batch, 0)
    parts = []
    with closing_workers(batches):
        for images, _ in track(batches, "features", unit="batches"):
            with autocast(recipe.precision):
                parts.append(network.head_features(images.to(hardware.device())).cpu())
    return torch.cat(parts)


def cases(judged: Judged, share: float, repeats: int) -> Iterator[tuple[int, Bools, Bools]]:
    """The number of each draw, its annotations, and which of them are wrong."""
    for repeat in range(repeats):
        given = make_wrong(judged.truth, judged.groups, share, np.random.default_rng(repeat))
        yield repeat, given, given != judged.truth


def main(judged: Judged, by_run: Folds | None, refitted: Refitted | None, repeats: int) -> pd.DataFrame:
    """Print and return the table.

    Args:
        judged: probabilities, truth and groups.
        by_run: (N,), the folds of the run; None splits the groups at random.
        refitted: the model that learns from the wrong annotations, if any.
        repeats: draws of wrong annotations.
    """
    ensemble = params.load().ensemble
    members = np.stack(list(judged.networks.values()))
    clean = refitted.predict(judged.truth) if refitted else None
    rows = []
    for share in SHARES:
        by_model: dict[str, list[Case]] = {}
        for repeat, given, wrong in track(list(cases(judged, share, repeats)), f"{share:.0%} wrong", unit="draws"):
            shuffled = np.random.default_rng(repeat).permutation(judged.groups.max() + 1)
            folds = (shuffled % FOLDS)[judged.groups] if by_run is None else by_run
            probabilities = {"networks trained on the truth": members}
            if refitted and clean is not None:
                probabilities["frozen model fitted to the truth"] = clean
                probabilities["frozen model fitted to the wrong annotations"] = refitted.predict(given)
            for name, own in probabilities.items():
                by_model.setdefault(name, []).append(find(own, given, wrong, folds, ensemble))
        rows += [{"share": share, "by": name, **summarise(own, judged.groups)} for name, own in by_model.items()]
    table = pd.DataFrame(rows)
    figures = {"n": len(judged.truth), "groups": int(judged.groups.max() + 1), "draws": repeats}
    report(table, figures | {"results": table.round(4).to_dict("records")})
    return table


def run(arguments: argparse.Namespace) -> None:
    """Read what the command line names and measure it."""
    if not arguments.run:
        judged, _ = read_judged(arguments.scores, arguments.truth)
        main(judged, None, None, arguments.repeats)
        return
    if not arguments.run.is_dir():
        raise InputError(f"{arguments.run} is not a folder: name that of a finished run")
    os.chdir(arguments.run)  # params.yaml, weights and packed images are found from there
    settings, judged = params.load(), read_run(Path())
    refitted = Refitted(settings.templates.frozen, settings.machine) if arguments.retrain else None
    main(judged, read_folds()["fold"].to_numpy(), refitted, arguments.repeats)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, metavar="FOLDER", help="a finished run")
    parser.add_argument("--retrain", action="store_true", help="also fit a model to the wrong annotations")
    parser.add_argument("--scores", type=Path, metavar="NPZ", help="ids and probabilities")
    parser.add_argument("--truth", type=Path, metavar="CSV", help="columns Id and Target")
    parser.add_argument("--repeats", type=int, default=20, help="draws of wrong annotations (default: %(default)s)")
    arguments = parser.parse_args()
    if bool(arguments.run) == bool(arguments.scores and arguments.truth):
        parser.error("give either --run, or --scores and --truth")
    run_main(lambda: run(arguments))
