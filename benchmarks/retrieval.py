"""How well embeddings find samples with the same labels, and what neighbours add to a blend.

    for fold in 0 1 2; do python -m pipeline embed --run --fold $fold --out fold-$fold.npz; done
    python -m benchmarks.retrieval --run . --embeddings fold-0.npz fold-1.npz fold-2.npz
    python -m pipeline embed FOLDER --out fields.npz
    python -m benchmarks.retrieval --images FOLDER --embeddings fields.npz

With ``--run``, each file has all samples of the run by the model that was trained without one fold. Samples of this
fold are the queries; they are searched among the samples of the other folds, so that no group is its own neighbour.

- first: share of the queries whose most similar sample has a label in common; same: has exactly the same labels.
- mAP: mean over the queries of the average precision of all samples ranked by similarity, where those with a label in
  common are relevant.
- antibody first, antibody mAP: the same for samples of the query's group, among the other samples of its fold, which
  are of antibodies that the model was not trained on.

``chance`` is the mean over the queries of the share of relevant samples.

The neighbours also make a model: the probability of a label is the mean over the nearest samples, weighted by
similarity, with the label's share as one more sample. How many and how weighted is chosen on the other folds. It is
added to the blend of the run, everything cross-fitted, and the blends with it and without it are compared on the same
resampled groups.

With ``--images``, samples are searched among each other. FOLDER contains train.csv, as for ``benchmarks.real_fields``.

With ``--baseline``, other embeddings of the same samples are searched too; ``gain_`` is the paired difference to them.

Intervals are 95 % bootstrap intervals over groups. The last line is JSON.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.interleaved import report
from benchmarks.real_fields import read_truth
from benchmarks.real_predictions import read_run
from pipeline.core import params, paths
from pipeline.core.entry import run_main
from pipeline.core.errors import InputError
from pipeline.core.labels import target_matrix
from pipeline.data.fold_table import read_folds
from pipeline.evaluation.decision_rule import CrossFit, cross_fit, fit_rule
from pipeline.evaluation.intervals import difference
from pipeline.evaluation.metrics import Bools, Floats, macro_f1
from pipeline.evaluation.prediction_files import read_arrays
from pipeline.evaluation.ranking import group_weights, mean_average_precision
from pipeline.inference.embedding import Vectors
from pipeline.inference.neighbours import Gallery
from pipeline.inference.new_images import open_places

RESAMPLES = 1000
CONFIDENCE = 0.95
COUNTS = (5, 10, 20, 50)
SHARPNESSES = (5.0, 10.0, 20.0)
"""Weights are ``exp(sharpness * (similarity - that of the nearest sample))``."""

Groups = npt.NDArray[np.str_]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Searched:
    """Queries and the samples among which they were searched, in the order of their similarity.

    Attributes:
        relevant: (Q, N), which samples are relevant, the most similar sample first.
        same: (Q, N), which have exactly the query's labels.
        groups: (Q,), of the queries.
    """

    relevant: Bools
    same: Bools
    groups: Groups


def read_embeddings(path: Path) -> tuple["pd.Index[str]", int, Vectors]:
    """The ids, the fold and the vectors of a file of ``pipeline embed``, all by one model.

    Raises:
        InputError: the file is missing, damaged, or of several models.
    """
    remedy = "make it with python -m pipeline embed --fold K --out FILE.npz"
    arrays = read_arrays(path, {"ids": "U", "models": "U", "folds": "i", "vectors": "f"}, remedy)
    if len(np.unique(arrays["models"])) != 1 or len(np.unique(arrays["folds"])) != 1:
        raise InputError(f"{path} has embeddings by several models, which cannot be compared: {remedy}")
    return pd.Index(arrays["ids"].tolist()), int(arrays["folds"][0]), arrays["vectors"]


def search(gallery: Vectors, queries: Vectors, truth: tuple[Bools, Bools], groups: Groups, *, own: bool) -> Searched:
    """Rank all samples of a gallery for each query.

    Args:
        gallery: (N, D).
        queries: (Q, D).
        truth: labels of the gallery, (N, 28), and of the queries, (Q, 28).
        groups: (Q,), of the queries.
        own: queries and gallery are the same samples, and none is searched for itself.
    """
    known, asked = (labels.astype(np.int64) for labels in truth)
    order = Gallery(gallery).nearest(queries, len(gallery), own=own).positions
    order = order[:, : len(gallery) - own]
    common = asked @ known.T
    same = (common == asked.sum(axis=1, keepdims=True)) & (common == known.sum(axis=1))
    return Searched(np.take_along_axis(common > 0, order, 1), np.take_along_axis(same, order, 1), groups)


def search_antibodies(vectors: Vectors, groups: Groups) -> Searched:
    """Rank all other samples for each sample that has others of its group."""
    order = Gallery(vectors).nearest(vectors, len(vectors), own=True).positions[:, :-1]
    relevant = groups[order] == groups[:, None]
    having = relevant.any(axis=1)
    return Searched(relevant[having], relevant[having], groups[having])


def average_precisions(relevant: Bools) -> Doubles:
    """The average precision of each row, (Q,); NaN where nothing is relevant."""
    precision = relevant.cumsum(axis=1) / np.arange(1, relevant.shape[1] + 1)
    with np.errstate(invalid="ignore"):
        found: Doubles = (precision * relevant).sum(axis=1) / relevant.sum(axis=1)
    return found


def rate(parts: Sequence[Searched], prefix: str = "", baseline: Sequence[Searched] = ()) -> dict[str, float]:
    """The scores over the queries of all parts, with the ends of their intervals.

    Args:
        parts: of one set of embeddings.
        prefix: of the names.
        baseline: the same queries with other embeddings; the differences to their scores are named ``gain_``.
    """
    groups = np.concatenate([part.groups for part in parts])
    scores, others = score_queries(parts), score_queries(baseline) if baseline else {}
    weights = np.concatenate(list(group_weights(groups, resamples=RESAMPLES, seed=0)))
    found: dict[str, float] = {f"{prefix}queries": len(groups), f"{prefix}groups": len(np.unique(groups))}
    scores |= {f"gain_{name}": scores[name] - own for name, own in others.items() if name != "chance"}
    for name, own in scores.items():
        counted = np.isfinite(own)
        resampled = weights[:, counted] @ own[counted] / weights[:, counted].sum(axis=1)
        low, high = np.quantile(resampled, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
        found |= {f"{prefix}{name}": float(own[counted].mean())}
        if name != "chance":
            found |= {f"{prefix}{name}_low": float(low), f"{prefix}{name}_high": float(high)}
    return found


def score_queries(parts: Sequence[Searched]) -> dict[str, Doubles]:
    """The scores of each query of all parts, (Q,) each; an average precision is NaN where nothing is relevant."""
    return {
        "first": np.concatenate([part.relevant[:, 0] for part in parts]).astype(np.float64),
        "same": np.concatenate([part.same[:, 0] for part in parts]).astype(np.float64),
        "mAP": np.concatenate([average_precisions(part.relevant) for part in parts]),
        "chance": np.concatenate([part.relevant.mean(axis=1) for part in parts]),
    }


def neighbour_probabilities(similarities: Vectors, labels: Bools, share: Doubles, sharpness: float) -> Doubles:
    """Probabilities of queries from their neighbours, (Q, 28).

    Args:
        similarities: (Q, k), the nearest sample first.
        labels: (Q, k, 28), of the neighbours.
        share: (28,), of the gallery's samples with each label; it counts as much as the nearest neighbour.
        sharpness: see ``SHARPNESSES``.
    """
    weights = np.exp(sharpness * (similarities - similarities[:, :1]).astype(np.float64))
    found: Doubles = (np.einsum("qk,qkl->ql", weights, labels) + share) / (weights.sum(axis=1, keepdims=True) + 1)
    return found


def neighbour_model(by_fold: dict[int, Vectors], truth: Bools, folds: npt.NDArray[np.int64]) -> Doubles:
    """Out-of-fold probabilities of the model of neighbours, (N, 28).

    Args:
        by_fold: embeddings of all samples, (N, D), by the model that was trained without the fold.
        truth: (N, 28).
        folds: (N,).
    """
    tried = [(count, sharpness) for count in COUNTS for sharpness in SHARPNESSES]
    every = np.empty((len(tried), *truth.shape))
    for fold, vectors in by_fold.items():
        asked = folds == fold
        nearest = Gallery(vectors[~asked]).nearest(vectors[asked], max(COUNTS))
        labels, share = truth[~asked][nearest.positions], truth[~asked].mean(axis=0)
        for number, (count, sharpness) in enumerate(tried):
            cut = nearest.similarities[:, :count], labels[:, :count]
            every[number, asked] = neighbour_probabilities(*cut, share, sharpness)
    chosen = np.empty(truth.shape)
    for fold in by_fold:
        rest = folds != fold
        ones = np.ones((1, rest.sum()))
        ranked = [mean_average_precision(own[rest], truth[rest], ones)[0] for own in every]
        chosen[~rest] = every[int(np.argmax(ranked))][~rest]
    return chosen


def compare_blends(members: Floats, extra: Doubles, truth: Bools, groups: Groups, folds: Floats) -> dict[str, float]:
    """Scores of the run's blend without and with one more model, and the paired differences."""
    settings = params.load()
    fit = partial(fit_rule, settings=settings.ensemble)
    both = np.concatenate([members, extra[None].astype(members.dtype)])
    before, after = (cross_fit(each, truth, folds.astype(np.int64), fit) for each in (members, both))
    alone = cross_fit(both[-1:], truth, folds.astype(np.int64), fit)
    change, _ = difference(before.decisions, after.decisions, truth, groups, settings.score)
    weights = np.concatenate(list(group_weights(groups, resamples=RESAMPLES, seed=0)))

    def ranked(one: CrossFit, by: Doubles) -> Doubles:
        return mean_average_precision(one.probabilities, truth, by)

    ones = np.ones((1, len(truth)))
    gains = ranked(after, weights) - ranked(before, weights)
    low, high = np.quantile(gains, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return {
        "neighbours_macro_f1": macro_f1(alone.decisions, truth),
        "blend_macro_f1": macro_f1(before.decisions, truth),
        "with_neighbours_macro_f1": macro_f1(after.decisions, truth),
        "gain_macro_f1": change.estimate,
        "gain_macro_f1_low": change.low,
        "gain_macro_f1_high": change.high,
        "neighbours_mean_average_precision": float(ranked(alone, ones)[0]),
        "blend_mean_average_precision": float(ranked(before, ones)[0]),
        "with_neighbours_mean_average_precision": float(ranked(after, ones)[0]),
        "gain_mean_average_precision": float(ranked(after, ones)[0] - ranked(before, ones)[0]),
        "gain_mean_average_precision_low": float(low),
        "gain_mean_average_precision_high": float(high),
        "weight_of_neighbours": float(np.mean([rule.blender.weights[-1] for rule in after.rules.values()])),
    }


def read_by_fold(run: Path, files: Sequence[Path], samples: pd.DataFrame) -> dict[int, Vectors]:
    """The embeddings of a run's samples, (N, D) in the order of folds.csv, by the fold of the model.

    Raises:
        InputError: a file lacks samples, or a fold has no file.
    """
    by_fold: dict[int, Vectors] = {}
    for file in files:
        ids, fold, vectors = read_embeddings(file)
        rows = ids.get_indexer(pd.Index(samples["id"]))
        if (rows < 0).any():
            raise InputError(
                f"{file} lacks {int((rows < 0).sum())} samples of {run / paths.FOLDS}: embed the run again"
            )
        by_fold[fold] = vectors[rows]
    if missing := sorted(set(samples["fold"].tolist()) - set(by_fold)):
        raise InputError(f"{files[0]}: no file is by the models without the folds {missing}: name one file per fold")
    return dict(sorted(by_fold.items()))


def search_run(
    by_fold: dict[int, Vectors], truth: Bools, groups: Groups, folds: npt.NDArray[np.int64]
) -> tuple[list[Searched], list[Searched]]:
    """Search each fold's samples for their labels among the other folds', and for their antibody among the fold's."""
    by_labels, by_antibody = [], []
    for fold, vectors in by_fold.items():
        asked = folds == fold
        labels = truth[~asked], truth[asked]
        by_labels.append(search(vectors[~asked], vectors[asked], labels, groups[asked], own=False))
        by_antibody.append(search_antibodies(vectors[asked], groups[asked]))
    return by_labels, by_antibody


def of_run(run: Path, files: Sequence[Path], baseline: Sequence[Path] = ()) -> dict[str, float]:
    """All scores of a run's samples."""
    samples = read_folds(run / paths.FOLDS)
    truth, folds = target_matrix(samples["target"]), samples["fold"].to_numpy()
    groups = samples["group"].to_numpy(dtype=np.str_)
    by_fold = read_by_fold(run, files, samples)
    found = search_run(by_fold, truth, groups, folds)
    others = search_run(read_by_fold(run, baseline, samples), truth, groups, folds) if baseline else ([], [])
    members = np.stack(list(read_run(run).networks.values()))
    extra = neighbour_model(by_fold, truth, folds)
    blends = compare_blends(members, extra, truth, groups, folds)
    return {**rate(found[0], "", others[0]), **rate(found[1], "antibody_", others[1]), **blends}


def of_images(images: Path, files: Sequence[Path], baseline: Sequence[Path] = ()) -> dict[str, float]:
    """The scores of images that are searched among each other, each its own group."""
    if len(files) != 1 or len(baseline) > 1:
        raise InputError("--images needs one file of embeddings")
    with open_places([images]) as archive:
        ids, truth = read_truth(archive)
    searched = []
    for file in (*files, *baseline):
        known, _, vectors = read_embeddings(file)
        rows = known.get_indexer(pd.Index(ids))
        if (rows < 0).any():
            raise InputError(f"{file} lacks {int((rows < 0).sum())} samples of {images}: embed the images again")
        own = vectors[rows]
        searched.append(search(own, own, (truth, truth), np.array(ids), own=True))
    return rate(searched[:1], "", searched[1:])


def main(
    run: Path | None, images: Path | None, files: Sequence[Path], baseline: Sequence[Path] = ()
) -> dict[str, float]:
    """Return the figures of a run or of images."""
    if run is not None:
        return of_run(run, files, baseline)
    if images is not None:
        return of_images(images, files, baseline)
    raise InputError("name a run (--run) or images (--images)")


def show(found: dict[str, float]) -> None:
    """Print the figures."""
    rounded = {name: round(value, 4) for name, value in found.items()}
    report(pd.DataFrame({"figure": rounded.keys(), "value": rounded.values()}), rounded)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--run", type=Path, metavar="FOLDER", help="a finished run")
    chosen.add_argument("--images", type=Path, metavar="FOLDER", help="train.csv and images, as a source")
    parser.add_argument("--embeddings", type=Path, nargs="+", required=True, metavar="NPZ", help="by pipeline embed")
    parser.add_argument("--baseline", type=Path, nargs="+", default=[], metavar="NPZ", help="others to compare with")
    given = parser.parse_args()
    run_main(lambda: show(main(given.run, given.images, given.embeddings, given.baseline)))
