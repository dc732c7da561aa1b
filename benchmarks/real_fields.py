"""Label ranking on real fields of view: ``python -m benchmarks.real_fields --weights FILE FOLDER``.

FOLDER contains ``train.csv`` (columns Id and Target) and, in any subfolder, ID_green.png, ID_blue.png, ID_red.png and
ID_yellow.png. The network must not have been trained on these images, which the command does not check. Probabilities
are averaged over the eight views of TTA and over the sizes, by default 1, 7/6 and 4/3 of the one that the network was
trained at, because the size that suits differs between cells. Images are ranked by the probabilities relative to those
of the image's other labels (``pipeline.evaluation.relative_probabilities``), because real fields are unlike the
simulated ones; the row "network, plain" is of the probabilities as they are. There is no threshold: labels with at
least three positives and a negative are scored by

- AUC: the area under the ROC curve; the chance level is 0.5.
- AP: the average precision; the chance level is the label's share of the samples.

``--forest N`` adds the hand-crafted features and random forest of the project, trained on the same stains of N
simulated fields; simulation and features are those of ``sample`` and ``templates.classical`` in params.yaml.

Intervals are 95 % percentile intervals of a bootstrap over images. A resample without positives or without negatives of
a label is left out for this label, and a resample's mean is over its other labels. The AP of few positives is biased
upwards, in resamples more than in the data: compare it only on the same images, as the rows of differences do, in the
same resamples. The last line is JSON: the means over the labels, and the numbers of samples (n) and labels.
"""

import argparse
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from benchmarks.interleaved import report
from pipeline.core import code_digest, hardware, params
from pipeline.core.entry import run_main
from pipeline.core.errors import InputError, raise_problems
from pipeline.core.labels import CHANNELS, LABELS, format_target, target_matrix
from pipeline.core.paths import replacing
from pipeline.core.progress import track
from pipeline.evaluation.metrics import Bools, Floats
from pipeline.evaluation.relative_probabilities import relative_probabilities
from pipeline.inference.fold_model import FoldModel
from pipeline.inference.new_images import batches, open_places
from pipeline.inference.probabilities import VIEWS
from pipeline.inference.trained_models import LoadedModels, predict
from pipeline.models import checkpoint
from pipeline.models.classical import FeatureForest, extract_features
from pipeline.simulation.competition import Entry, plan
from pipeline.simulation.competition_archive import in_order
from pipeline.simulation.render import render
from pipeline.sources.archive import Archive
from pipeline.sources.images import MAX_SIDE, Image, shrink_quickly
from pipeline.sources.samples import list_samples

Scores = npt.NDArray[np.float64]

MIN_POSITIVES = 3
"""Labels with fewer positives are not scored: one sample would decide most of the score."""
RESAMPLES = 1000
CONFIDENCE = 0.95
SCALES = (1, 7 / 6, 4 / 3)
"""The default sizes, relative to the network's own and rounded to multiples of ``STRIDE``."""
STRIDE = 32
"""Pixels per position of the network's last stage."""
READ_SIZE = 512
"""Images are read at this size, or at the largest size asked for."""
BATCH = 16
FOREST_SEED = 7001
"""Default seed of the forest's simulated fields. params.yaml and the other benchmarks have other seeds."""
FOREST_CODE = ("pipeline.simulation.render", "pipeline.sources.images", "pipeline.models.classical")
"""Modules that determine the features of a simulated field."""


@dataclass(frozen=True)
class RankScores:
    """Scores of L labels, in the data (first row) and in R bootstrap resamples of the images.

    A resample's score is NaN where it has no positive or no negative of the label.

    Attributes:
        labels: (L,) ids.
        positives: (L,).
        chance: (L,) average precision of a random order, which is the share of positives.
        auc: area under the ROC curve, (1 + R, L).
        ap: average precision, (1 + R, L).
    """

    labels: npt.NDArray[np.intp]
    positives: npt.NDArray[np.intp]
    chance: npt.NDArray[np.float64]
    auc: Scores
    ap: Scores


def scored_labels(truth: Bools) -> npt.NDArray[np.intp]:
    """The labels that have enough positives and at least one negative in ``truth`` (N, 28): (L,) ids, ascending.

    Raises:
        InputError: there is none.
    """
    positives = truth.sum(axis=0)
    labels = np.flatnonzero((positives >= MIN_POSITIVES) & (positives < len(truth)))
    if not len(labels):
        raise InputError(
            f"no label has at least {MIN_POSITIVES} positives and a negative in the {len(truth)} samples: add samples"
        )
    return labels


def rank_scores(truth: Bools, probabilities: Floats, *, resamples: int = RESAMPLES, seed: int = 0) -> RankScores:
    """Score how probabilities rank the samples, label by label.

    With the same number of samples and the same seed, the resamples are the same, so differences are paired.

    Args:
        truth: (N, 28).
        probabilities: (N, 28); only their order within each label counts.
        resamples: number of bootstrap resamples.
        seed: of the resamples.

    Raises:
        InputError: no label can be scored.
    """
    labels, count = scored_labels(truth), len(truth)
    drawn = np.random.default_rng(seed).integers(count, size=(resamples, count))
    weights = np.stack([np.ones(count), *(np.bincount(row, minlength=count) for row in drawn)])
    auc, ap = np.stack([ranking(truth[:, label], probabilities[:, label], weights) for label in labels], axis=-1)
    return RankScores(labels, truth[:, labels].sum(axis=0), truth[:, labels].mean(axis=0), auc, ap)


def ranking(truth: Bools, scores: Floats, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """AUC and average precision of one label for R weightings of the samples, all at once.

    The same as scikit-learn's ``roc_auc_score`` and ``average_precision_score`` with ``sample_weight``.

    Args:
        truth: (N,).
        scores: (N,); samples with equal scores share a threshold.
        weights: (R, N), for a bootstrap resample how often it contains each sample.

    Returns:
        (2, R); NaN where the positives or the negatives have no weight.
    """
    order = np.argsort(-scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.inf))  # of runs of equal scores
    parts = (weights[:, order] * of for of in (truth[order], ~truth[order]))
    positives, negatives = (np.add.reduceat(part, starts, axis=1) for part in parts)  # R, runs
    hits, alarms = positives.cumsum(axis=1), negatives.cumsum(axis=1)
    precision = np.divide(hits, hits + alarms, out=np.zeros_like(hits), where=hits > 0)
    pairs = ((hits - positives / 2) * negatives).sum(axis=1)  # a tie counts half
    total = hits[:, -1] * alarms[:, -1]
    with np.errstate(invalid="ignore", divide="ignore"):
        both = np.stack([pairs / total, (positives * precision).sum(axis=1) / hits[:, -1]])
    return np.where(total > 0, both, np.nan)


def label_mean(scores: Scores) -> Scores:
    """Mean over the labels that are scored, (1 + R, L) to (1 + R,); NaN in resamples without any."""
    return np.asarray(np.ma.masked_invalid(scores).mean(axis=1).filled(np.nan))


def with_interval(scores: Scores) -> str:
    """A score and its percentile interval as text, from (1 + R,): the score, then that of each resample."""
    low, high = np.nanquantile(scores[1:], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return f"{scores[0]:.3f} ({low:.3f} to {high:.3f})"


def label_table(scores: Mapping[str, RankScores]) -> pd.DataFrame:
    """A row per label, with the scores of each model, which are of the same truth."""
    first = next(iter(scores.values()))
    columns = {f"{model} AUC": list(map(with_interval, own.auc.T)) for model, own in scores.items()}
    columns |= {f"{model} AP": list(map(with_interval, own.ap.T)) for model, own in scores.items()}
    names = {"label": [LABELS[label] for label in first.labels], "positives": first.positives}
    return pd.DataFrame(names | columns | {"chance AP": first.chance})


def mean_table(scores: Mapping[str, RankScores]) -> pd.DataFrame:
    """A row per model with its means over the labels, then the first model's paired differences to each other one."""
    means = {name: np.stack([label_mean(own.auc), label_mean(own.ap)]) for name, own in scores.items()}
    first, *others = means
    means |= {f"{first} - {other}": means[first] - means[other] for other in others}
    rows = [(name, with_interval(auc), with_interval(ap)) for name, (auc, ap) in means.items()]
    return pd.DataFrame(rows, columns=["", "mean AUC", "mean AP"])


def keep_stains(images: Image, stains: Sequence[str]) -> Image:
    """Set the other channels of images (..., 4) uint8 to 0."""
    return images * np.isin(CHANNELS, stains).astype(np.uint8)


def field_features(entry: Entry, settings: params.Simulation, size: int, stains: Sequence[str]) -> Floats:
    """Render a simulated field and compute its hand-crafted features, (F,)."""
    image = keep_stains(shrink_quickly(render(entry, settings), size), stains)
    return extract_features(image.transpose(2, 0, 1))


def train_forest(
    settings: params.Simulation, recipe: params.ClassicalModel, stains: Sequence[str], cache: Path | None
) -> FeatureForest:
    """Fit a forest to the training samples of a simulated competition, each as it is, as ``fit_closed_form`` does.

    The features are kept in the folder ``cache``, if given, in a file named after settings and code.
    """
    entries = [entry for entry in plan(settings) if entry.split == "train"]
    depends_on = (entries, settings, recipe.size, stains, *map(code_digest.of_module, FOREST_CODE))
    name = f"forest-{hashlib.sha256(repr(depends_on).encode()).hexdigest()[:16]}.npy"
    if cache is not None and (cache / name).exists():
        features = np.load(cache / name)
    else:
        work = partial(field_features, settings=settings, size=recipe.size, stains=stains)
        drawn = in_order(work, entries, os.cpu_count() or 1)
        features = np.stack(list(track(drawn, "simulate", total=len(entries))))
        if cache is not None:
            with replacing(cache / name) as temporary, temporary.open("wb") as file:
                np.save(file, features)
    targets = target_matrix(format_target(entry.labels) for entry in entries)
    forest = FeatureForest(recipe.seed)
    forest.forest.fit(torch.from_numpy(features), torch.from_numpy(targets).float())
    return forest.to(hardware.device()).eval()


def parse_sizes(text: str) -> list[int]:
    """Parse ``--size``, as in "128,256"."""
    words = text.split(",")
    if not all(word.isascii() and word.isdigit() and 32 <= int(word) <= MAX_SIDE for word in words):
        raise InputError(f"--size {text}: give sizes of 32 to {MAX_SIDE} pixels, separated by commas")
    return list(map(int, words))


def default_sizes(size: int) -> list[int]:
    """The sizes to average over for a network that was trained at ``size``, without duplicates."""
    return list(dict.fromkeys(round(scale * size / STRIDE) * STRIDE for scale in SCALES))


def parse_stains(text: str) -> list[str]:
    """Parse ``--stains``, as in "green,blue", to channels in the usual order."""
    words = text.split(",")
    if unknown := [word for word in words if word not in CHANNELS]:
        raise InputError(f"--stains {text}: {unknown[0]!r} is no stain: choose from {', '.join(CHANNELS)}")
    if CHANNELS[0] not in words:
        raise InputError(f"--stains {text}: {CHANNELS[0]}, the protein, is missing: add it")
    return [channel for channel in CHANNELS if channel in words]


def read_truth(archive: Archive) -> tuple[list[str], Bools]:
    """The ids of train.csv and their labels, (N, 28); see ``list_samples`` for the errors."""
    samples, problems = list_samples(archive)
    raise_problems(archive.folder, problems)
    known = samples[samples["split"] == "train"]
    return known["id"].tolist(), target_matrix(known["target"])


def predict_all(archive: Archive, ids: list[str], models: LoadedModels, stains: Sequence[str]) -> dict[str, Floats]:
    """Probabilities of each model, (N, 28), for the samples in the order of ``ids``."""
    largest = max(model.recipe.size for members in models.values() for model in members)
    read = batches(archive, ids, max(READ_SIZE, largest), BATCH)
    parts = [predict(models, keep_stains(images, stains), tuple(VIEWS)) for _, images in read]
    return dict(zip(models, np.concatenate(parts, axis=1), strict=True))


def main(
    weights: Path,
    folder: Path,
    *,
    size: str = "",
    stains: str = ",".join(CHANNELS),
    forest: int = 0,
    forest_seed: int = FOREST_SEED,
    cache: Path | None = None,
) -> None:
    """Predict the samples, score the predictions and print the tables; the arguments are those of the command."""
    used = parse_stains(stains)
    if min(forest, forest_seed) < 0:
        raise InputError("--forest and --forest-seed: give numbers from 0")
    sizes = parse_sizes(size) if size else []
    with open_places([folder]) as archive:
        ids, truth = read_truth(archive)
        scored_labels(truth)  # before predicting, which takes minutes
        network, recipe = checkpoint.load(weights)
        sizes = sizes or default_sizes(recipe.size)
        sized = [recipe.model_copy(update={"size": side}) for side in sizes]
        # Probabilities are averaged over the members of a model: here its sizes in place of its folds.
        models: LoadedModels = {"network": [FoldModel(network.to(hardware.device()), one) for one in sized]}
        if forest:
            settings = params.load()
            simulation = settings.sample.model_copy(update={"train": forest, "test": 1, "seed": forest_seed})
            classical = settings.templates.classical
            models["forest"] = [FoldModel(train_forest(simulation, classical, used, cache), classical)]
        predicted = predict_all(archive, ids, models, used)
    scores = {name: rank_scores(truth, relative_probabilities(own)) for name, own in predicted.items()}
    every = scores | {"network, plain": rank_scores(truth, predicted["network"])}
    beside = f"; forest: {forest} simulated fields, seed {forest_seed}" if forest else ""
    print(f"{len(ids)} samples of {folder}; weights: {weights}; size {sizes}; stains {', '.join(used)}{beside}")
    print(label_table(scores).to_string(index=False, float_format="{:.3f}".format), end="\n\n")
    figures: dict[str, object] = {"n": len(ids), "labels": len(scores["network"].labels)}
    prefixes = {"network": "", "network, plain": "plain_", "forest": "forest_"}
    for name, own in every.items():
        prefix = prefixes[name]
        figures |= {f"{prefix}mean_auc": own.auc[0].mean(), f"{prefix}mean_ap": own.ap[0].mean()}
    report(mean_table(every), figures)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="train.csv and the images")
    parser.add_argument("--weights", metavar="FILE", type=Path, required=True, help="weight file of a training")
    parser.add_argument("--size", metavar="N[,N...]", default="", help="image sizes in pixels (default: see above)")
    parser.add_argument("--stains", default=",".join(CHANNELS), help="channels that are not set to 0 (default: all)")
    parser.add_argument("--forest", metavar="N", type=int, default=0, help="train a forest on N simulated fields")
    parser.add_argument("--forest-seed", metavar="SEED", type=int, default=FOREST_SEED, help="default: %(default)s")
    parser.add_argument("--cache", metavar="DIR", type=Path, help="keep the features of the simulated fields here")
    run_main(lambda: main(**vars(parser.parse_args())))
