"""Attention compared, honestly: ``python -m benchmarks.comparison [RUN ...] [--out docs/attention.md]``.

A RUN is the folder of a finished ``dvc repro`` (this one, if none is named), whose folds and packed images serve.
Every attention with every head is trained on every fold with each of several seeds, all by one recipe and for the
same number of steps: the first model of the run's params.yaml, made small and started from nothing. Decisions are
cross-fitted as in the run. A score is macro-F1 over the labels that occur, on the held-out samples of all seeds
together, its interval a bootstrap over antibodies; differences to no attention with the same head are paired on the
same resamples. A training step is timed against that of no attention in interleaved rounds. On the simulated
competition, the maps of the first seed and fold are judged as well (benchmarks.maps).

It prints a table for each run and a last line of JSON; ``--out`` writes the tables as Markdown.
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
from benchmarks.maps import judge_sample
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
CHANNELS = (16, 32, 64, 128)
SIMULATED = "sample"
ROUNDS = 9

Name = tuple[str, str]
"""An attention and a head."""


@dataclass(frozen=True)
class Cell:
    """One training of the comparison."""

    recipe: params.Model
    fold: int
    maps: int
    """Simulated test samples to judge its maps on; 0 for none."""


@dataclass(frozen=True)
class Trained:
    """What came of it: held-out probabilities (n, 28), and the area under the ROC curve by kind of map."""

    held_out: npt.NDArray[np.float32]
    areas: dict[str, float]


def small(base: params.Model, size: int, steps: int, samples: int) -> params.Model:
    """The run's first recipe made small, from nothing, with as many epochs as make ``steps`` steps."""
    batches = max(samples // base.batch_size, 1)
    epochs = max(round(steps / batches), 1)
    update = {"channels": CHANNELS, "backbone": "resnet10t", "size": size, "pretrained": False}
    return base.model_copy(update={**update, "epochs": epochs, "evaluate_every": epochs})


def train(cell: Cell) -> Trained:
    """Train one network, on one core."""
    torch.set_num_threads(1)
    recipe, table = cell.recipe, read_folds()
    images = {source: open_images(source) for source in table["source"].unique()}
    rest, held_out = table[table["fold"] != cell.fold], table[table["fold"] == cell.fold]
    training = Samples(
        rest, images, recipe.size, augmentation=Augmentation(recipe.augment, recipe.size), seed=recipe.seed
    )
    torch.manual_seed(recipe.seed)
    network = Network(recipe)
    mean, std = channel_statistics(rest)
    network.initialise(training.targets.mean(dim=0), torch.from_numpy(mean), torch.from_numpy(std))
    found: list[npt.NDArray[np.float32]] = []

    def keep(epoch: Epoch, probabilities: npt.NDArray[np.float32]) -> float:
        found.append(probabilities)
        say(f"{recipe.attention}, {recipe.head}, seed {recipe.seed}, fold {cell.fold}: loss {epoch.train_loss:.4f}")
        return epoch.train_loss

    machine = params.Machine(workers=0, predict_batch=64, devices="auto", save_minutes=60, tensorboard=False)
    with tempfile.TemporaryDirectory() as folder:
        states = SavedStates(Path(folder) / "cell", "run")
        network = fit(network, training, Samples(held_out, images, recipe.size), recipe, machine, keep, states)
    return Trained(found[-1], judge_maps(network, recipe.size, cell.maps) if cell.maps else {})


def judge_maps(network: Network, size: int, samples: int) -> dict[str, float]:
    """Mean area under the ROC curve of each kind of map on simulated test samples, by chance 0.5."""
    settings = params.load().sample
    index, images = read_index(SIMULATED), open_images(SIMULATED)
    rows = dict(zip(index["id"], index["row"].tolist(), strict=True))
    entries = [entry for entry in plan(settings) if entry.split == "test"][:samples]
    judged = [
        judgement
        for entry in entries
        for judgement in judge_sample({"": (network, size)}, images[rows[entry.id]], entry, settings)
    ]
    areas = pd.DataFrame({"kind": [j.kind for j in judged], "auc": [j.auc for j in judged]})
    return {str(kind): float(auc) for kind, auc in areas.groupby("kind")["auc"].mean().items()}


def row(
    name: Name,
    decisions: Bools,
    plain: Bools,
    truth: Bools,
    groups: npt.NDArray[np.str_],
    score: params.Score,
) -> dict[str, object]:
    """Scores of one configuration; decisions of all seeds below one another, (seeds * N, 28)."""
    figures = summarise(decisions, truth, groups, score)
    change, _ = difference(plain, decisions, truth, groups, score)
    # Labels that no sample has are 0 either way, so that the mean over those that occur is this much more.
    scale = truth.shape[1] / figures["labels_present"]
    ends = (figures[f"macro_f1_present{end}"] for end in ("", "_low", "_high"))
    return {
        "attention": name[0],
        "head": name[1],
        "macro-F1": "{:.3f} ({:.3f} to {:.3f})".format(*ends),
        "over none": f"{scale * change.estimate:+.3f} ({scale * change.low:+.3f} to {scale * change.high:+.3f})",
    }


def time_steps(recipes: dict[Name, params.Model]) -> dict[Name, float]:
    """The median time of a training step over that of no attention with the same head."""
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
    """Train and score each attention, "none" first, with each head on the run in the working folder; return a table."""
    settings, table = params.load(), read_folds()
    folds, truth = table["fold"].to_numpy(), target_matrix(table["target"])
    ids = np.unique(folds).tolist()
    base = small(next(iter(settings.models.values())), size, steps, len(table) * (len(ids) - 1) // len(ids))
    names = list(itertools.product(attention, HEADS))
    recipes = {name: base.model_copy(update={"attention": name[0], "head": name[1]}) for name in names}
    simulated = settings.data.sources[0] == SIMULATED
    cells = [
        Cell(recipes[name].model_copy(update={"seed": seed}), fold, maps if simulated and seed == fold == 0 else 0)
        for name, seed, fold in itertools.product(names, range(seeds), ids)
    ]
    # A generator: the workers start after the steps have been timed.
    trained = iter(track(in_order(train, cells, os.cpu_count() or 1), "compare", total=len(cells), unit="networks"))
    speed = time_steps(recipes)
    groups = np.tile(table["group"].to_numpy(dtype=np.str_), seeds)
    rows, plain = [], dict[str, Bools]()
    for name, recipe in recipes.items():
        decided, areas = [], dict[str, float]()
        for _ in range(seeds):
            members: Floats = np.zeros((1, *truth.shape), dtype=np.float32)
            for fold in ids:
                one = next(trained)
                members[0, folds == fold] = one.held_out
                areas |= one.areas
            decided.append(cross_fit(members, truth, folds, partial(fit_rule, settings=settings.ensemble)).decisions)
        together = np.concatenate(decided)
        plain.setdefault(name[1], together)
        figures = row(name, together, plain[name[1]], np.tile(truth, (seeds, 1)), groups, settings.score)
        figures["weights, thousands"] = round(sum(weight.numel() for weight in Network(recipe).parameters()) / 1e3)
        figures["step over none"] = f"{speed[name]:.2f}"
        rows.append(figures | {f"{kind} auc": f"{area:.3f}" for kind, area in areas.items()})
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
    parser.add_argument("runs", type=Path, nargs="*", default=[Path()], help="folders of finished runs")
    others = [kind for kind in ATTENTION if kind != "none"]
    parser.add_argument("--attention", nargs="+", choices=others, default=others, help="besides none")
    parser.add_argument("--size", type=int, default=64, help="pixels")
    parser.add_argument("--steps", type=int, default=240, help="of training")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--maps", type=int, default=60, help="simulated test samples to judge maps on")
    parser.add_argument("--out", type=Path, help="a Markdown file for the tables")
    arguments = parser.parse_args()
    kinds = ["none", *arguments.attention]
    main(arguments.runs, kinds, arguments.size, arguments.steps, arguments.seeds, arguments.maps, arguments.out)
