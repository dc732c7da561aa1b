"""Controlled comparison of attention types: ``python -m benchmarks.comparison [RUN ...] [--out FILE.md]``.

A RUN is the folder of a finished ``dvc repro`` (default: this folder); its folds and packed images are used. Every
combination of attention and head is trained on every fold with several seeds. All share one recipe and number of
steps: the first network of the run's params.yaml, made small and trained from scratch. Decisions are cross-fitted as in
the run.

Scores are macro-F1 over the labels that occur, on the held-out samples of all seeds together. Intervals are a
bootstrap over antibodies; the difference to no attention with the same head uses the same resamples. Training steps are
timed in interleaved rounds. On the simulated competition, the attention maps of the first seed and fold are scored as
well (benchmarks.maps).

It prints a table for each run, and a last line of JSON; ``--out`` writes the tables as Markdown.
"""

import argparse
import contextlib
import itertools
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from benchmarks.attention import step
from benchmarks.interleaved import measure, ratio_of_medians, report
from benchmarks.maps import score_sample
from pipeline.core import params
from pipeline.core.labels import target_matrix
from pipeline.core.progress import say, track
from pipeline.data.augment import Augmentation
from pipeline.data.fold_table import read_folds
from pipeline.data.loader import Samples
from pipeline.evaluation.decision_rule import cross_fit, fit_rule
from pipeline.evaluation.intervals import difference
from pipeline.evaluation.metrics import Bools, Floats
from pipeline.evaluation.score_tables import summarise
from pipeline.models.network import Network
from pipeline.simulation.competition import plan
from pipeline.simulation.competition_archive import in_order
from pipeline.sources.packed_array import channel_statistics, open_images, read_index
from pipeline.training.history import Epoch
from pipeline.training.loop import fit
from pipeline.training.saved_states import SavedStates

ATTENTION = ("none", "channel", "cbam", "nonlocal", "self")
HEADS = ("pooled", "label_queries")
WIDTHS = (16, 32, 64, 128)
SIMULATED = "sample"
ROUNDS = 9

Name = tuple[str, str]
"""Attention and head."""


@dataclass(frozen=True)
class ComparisonJob:
    """One training of the comparison.

    Attributes:
        recipe: the model.
        fold: the held-out fold.
        maps: simulated test samples on which its attention maps are scored; 0 for none.
    """

    recipe: params.NetworkModel
    fold: int
    maps: int


@dataclass(frozen=True)
class Trained:
    """The result of a job: held-out probabilities (n, 28), and the mean ROC AUC of each kind of attention map."""

    held_out: npt.NDArray[np.float32]
    aucs: dict[str, float]


def small(base: params.NetworkModel, size: int, steps: int, samples: int) -> params.NetworkModel:
    """Shrink a recipe, without pretrained weights; its epochs amount to about ``steps`` steps."""
    batches = max(samples // base.batch_size, 1)
    epochs = max(round(steps / batches), 1)
    update = {"widths": WIDTHS, "backbone": "resnet10t", "size": size, "pretrained": False}
    return base.model_copy(update={**update, "epochs": epochs, "evaluate_every": epochs})


def train(job: ComparisonJob) -> Trained:
    """Train one network, on one core."""
    torch.set_num_threads(1)
    recipe, table = job.recipe, read_folds()
    images = {source: open_images(source) for source in table["source"].unique()}
    rest, held_out = table[table["fold"] != job.fold], table[table["fold"] == job.fold]
    training = Samples(
        rest, images, recipe.size, augmentation=Augmentation(recipe.augment, recipe.size), seed=recipe.seed
    )
    torch.manual_seed(recipe.seed)
    network = Network(recipe)
    mean, std = channel_statistics(rest)
    network.initialise(training.targets.mean(dim=0), torch.from_numpy(mean), torch.from_numpy(std))
    predictions: list[npt.NDArray[np.float32]] = []

    def keep(epoch: Epoch, probabilities: npt.NDArray[np.float32]) -> float:
        predictions.append(probabilities)
        say(f"{recipe.attention}, {recipe.head}, seed {recipe.seed}, fold {job.fold}: loss {epoch.train_loss:.4f}")
        return epoch.train_loss

    machine = params.Machine(workers=0, predict_batch=64, devices="auto", save_minutes=60, tensorboard=False)
    with tempfile.TemporaryDirectory() as folder:
        states = SavedStates(Path(folder) / "job", "run")
        network = fit(network, training, Samples(held_out, images, recipe.size), recipe, machine, keep, states)
    return Trained(predictions[-1], score_maps(network, recipe.size, job.maps) if job.maps else {})


def score_maps(network: Network, size: int, samples: int) -> dict[str, float]:
    """Mean ROC AUC of each kind of attention map on simulated test samples; chance is 0.5."""
    settings = params.load().sample
    index, images = read_index(SIMULATED), open_images(SIMULATED)
    rows = dict(zip(index["id"], index["row"].tolist(), strict=True))
    entries = [entry for entry in plan(settings) if entry.split == "test"][:samples]
    scores = [
        score
        for entry in entries
        for score in score_sample({"": (network, size)}, images[rows[entry.id]], entry, settings)
    ]
    table = pd.DataFrame({"kind": [score.kind for score in scores], "auc": [score.auc for score in scores]})
    return {str(kind): float(auc) for kind, auc in table.groupby("kind")["auc"].mean().items()}


def row(
    name: Name,
    decisions: Bools,
    plain: Bools,
    truth: Bools,
    groups: npt.NDArray[np.str_],
    score: params.Score,
) -> dict[str, object]:
    """Scores of one configuration.

    Args:
        name: attention and head.
        decisions: (seeds * N, 28), the decisions of all seeds, one seed after the other.
        plain: (seeds * N, 28), the same without attention.
        truth: (seeds * N, 28).
        groups: (seeds * N,), the antibodies.
        score: resamples and confidence level of the intervals.
    """
    figures = summarise(decisions, truth, groups, score)
    change, _ = difference(plain, decisions, truth, groups, score)
    # `difference` averages over all labels; this factor turns it into an average over the labels that occur.
    scale = truth.shape[1] / figures["labels_present"]
    ends = (figures[f"macro_f1_present{end}"] for end in ("", "_low", "_high"))
    low, high = scale * change.low, scale * change.high
    return {
        "attention": name[0],
        "head": name[1],
        "macro-F1": "{:.3f} ({:.3f} to {:.3f})".format(*ends),
        "difference to none": f"{scale * change.estimate:+.3f} ({low:+.3f} to {high:+.3f})",
    }


def time_steps(recipes: dict[Name, params.NetworkModel]) -> dict[Name, float]:
    """Median time of a training step, relative to no attention with the same head."""
    torch.set_num_threads(1)
    relative: dict[Name, float] = {}
    for head in HEADS:
        own = {name: recipe for name, recipe in recipes.items() if name[1] == head}
        cases = {
            name[0]: step(Network(recipe), recipe.size, recipe.batch_size, bf16=False) for name, recipe in own.items()
        }
        seconds = measure(cases, ROUNDS)
        relative |= {name: ratio_of_medians(seconds, name[0], "none") for name in own}
    return relative


def compare(attention: Sequence[str], size: int, steps: int, seeds: int, maps: int) -> pd.DataFrame:
    """Train and score each attention ("none" must come first) with each head on the run in the working folder."""
    settings, table = params.load(), read_folds()
    folds, truth = table["fold"].to_numpy(), target_matrix(table["target"])
    ids = np.unique(folds).tolist()
    base = small(settings.networks[0], size, steps, len(table) * (len(ids) - 1) // len(ids))
    names = list(itertools.product(attention, HEADS))
    recipes = {name: base.model_copy(update={"attention": name[0], "head": name[1]}) for name in names}
    simulated = settings.data.sources[0] == SIMULATED
    jobs = [
        ComparisonJob(
            recipes[name].model_copy(update={"seed": seed}), fold, maps if simulated and seed == fold == 0 else 0
        )
        for name, seed, fold in itertools.product(names, range(seeds), ids)
    ]
    # A generator: its workers start only after the steps have been timed.
    trained = iter(track(in_order(train, jobs, os.cpu_count() or 1), "compare", total=len(jobs), unit="networks"))
    speed = time_steps(recipes)
    groups = np.tile(table["group"].to_numpy(dtype=np.str_), seeds)
    rows, plain = [], dict[str, Bools]()
    for name, recipe in recipes.items():
        by_seed, aucs = [], dict[str, float]()
        for _ in range(seeds):
            members: Floats = np.zeros((1, *truth.shape), dtype=np.float32)
            for fold in ids:
                one = next(trained)
                members[0, folds == fold] = one.held_out
                aucs |= one.aucs
            by_seed.append(cross_fit(members, truth, folds, partial(fit_rule, settings=settings.ensemble)).decisions)
        decisions = np.concatenate(by_seed)
        plain.setdefault(name[1], decisions)
        figures = row(name, decisions, plain[name[1]], np.tile(truth, (seeds, 1)), groups, settings.score)
        figures["parameters, thousands"] = round(sum(weight.numel() for weight in Network(recipe).parameters()) / 1e3)
        figures["relative step time"] = f"{speed[name]:.2f}"
        rows.append(figures | {f"{kind} AUC": f"{auc:.3f}" for kind, auc in aucs.items()})
    return pd.DataFrame(rows).fillna("")


def main(
    runs: list[Path], attention: Sequence[str], size: int, steps: int, seeds: int, maps: int, out: Path | None
) -> None:
    """Compare on each run, print the tables, and write them."""
    tables = {}
    for run in runs:
        with contextlib.chdir(run):
            sources, folds = params.load().data.sources, read_folds()
            title = f"{' and '.join(sources)}: {len(folds)} samples, {seeds} seeds, {steps} steps at {size} px"
            tables[title] = compare(attention, size, steps, seeds, maps)
        report(tables[title], {"run": sources[0], "configurations": len(tables[title]), "samples": len(folds)})
    if out:
        text = "\n".join(f"## {title}\n\n{table.to_markdown(index=False)}\n" for title, table in tables.items())
        out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "runs", type=Path, nargs="*", default=[Path()], help="folders of finished runs (default: this one)"
    )
    others = [kind for kind in ATTENTION if kind != "none"]
    parser.add_argument("--attention", nargs="+", choices=others, default=others, help="types to compare with none")
    parser.add_argument("--size", type=int, default=64, help="size that the networks see (pixels)")
    parser.add_argument("--steps", type=int, default=240, help="training steps (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of each configuration (default: %(default)s)")
    parser.add_argument(
        "--maps", type=int, default=60, help="simulated test samples on which attention maps are scored"
    )
    parser.add_argument("--out", type=Path, help="Markdown file to write the tables to")
    arguments = parser.parse_args()
    kinds = ["none", *arguments.attention]
    main(arguments.runs, kinds, arguments.size, arguments.steps, arguments.seeds, arguments.maps, arguments.out)
