"""Attention compared, honestly: ``python -m benchmarks.comparison``, after a run (it uses its folds and packed images).

Every attention with every head is trained on every fold with each of several seeds, all by one recipe: the first
model of params.yaml, made small. Decisions are cross-fitted as in the run. A score is macro-F1 over the held-out
samples of all seeds together, its interval a bootstrap over antibodies; differences to no attention with the same
head are paired on the same resamples. On the simulated competition, the maps of seed 0 are judged as well
(benchmarks.maps). It writes a table as Markdown, and prints it with a last line of JSON.
"""

import argparse
import itertools
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from benchmarks.interleaved import report
from benchmarks.maps import judge_sample
from pipeline import params
from pipeline.atlas.augment import augmentation
from pipeline.atlas.batches import Samples
from pipeline.atlas.folds import read_folds
from pipeline.atlas.packed import channel_statistics, open_images, read_index
from pipeline.labels import target_matrix
from pipeline.model.network import Network
from pipeline.progress import say
from pipeline.scoring.crossfit import cross_fit
from pipeline.scoring.metrics import Bools, Floats
from pipeline.scoring.paired import difference
from pipeline.scoring.rule import fit_rule
from pipeline.scoring.tables import summarise
from pipeline.simulate.competition import plan
from pipeline.training.fit import Epoch, fit
from pipeline.training.resume import States

ATTENTION = ("none", "channel", "spatial", "cbam", "nonlocal", "self")
HEADS = ("pooled", "label_queries")
CHANNELS = (16, 32, 64, 128)


def train(
    recipe: params.Model, table: pd.DataFrame, fold: int, images: dict[str, npt.NDArray[np.uint8]]
) -> tuple[Network, npt.NDArray[np.float32]]:
    """One network and its held-out probabilities, (n, 28)."""
    rest, held_out = table[table["fold"] != fold], table[table["fold"] == fold]
    training = Samples(rest, images, recipe.size, change=augmentation(recipe.augment, recipe.size), seed=recipe.seed)
    torch.manual_seed(recipe.seed)
    network = Network(recipe)
    mean, std = channel_statistics(rest)
    network.start_from(training.targets.mean(dim=0), torch.from_numpy(mean), torch.from_numpy(std))
    found: list[npt.NDArray[np.float32]] = []

    def keep(epoch: Epoch, probabilities: npt.NDArray[np.float32]) -> str:
        found.append(probabilities)
        return f"{recipe.attention} {recipe.head} seed {recipe.seed} fold {fold}: loss {epoch.train_loss:.4f}"

    machine = params.Machine(workers=0, predict_batch=64)
    with tempfile.TemporaryDirectory() as folder:
        states = States(Path(folder) / "cell", "run")
        network = fit(network, training, Samples(held_out, images, recipe.size), recipe, machine, keep, states)
    return network, found[-1]


def decide(
    recipe: params.Model, table: pd.DataFrame, settings: params.Params, images: dict[str, npt.NDArray[np.uint8]]
) -> tuple[Bools, Network]:
    """Cross-fitted decisions (N, 28) of one configuration and seed, and the first fold's network."""
    folds, truth = table["fold"].to_numpy(), target_matrix(table["target"])
    probabilities: Floats = np.zeros((1, *truth.shape), dtype=np.float32)
    networks = []
    for fold in np.unique(folds).tolist():
        network, probabilities[0, folds == fold] = train(recipe, table, fold, images)
        networks.append(network)
    fitted = cross_fit(probabilities, truth, folds, partial(fit_rule, settings=settings.ensemble))
    return fitted.decisions, networks[0]


def judge_maps(network: Network, size: int, settings: params.Params, samples: int) -> dict[str, float]:
    """Mean area under the ROC curve of each kind of map on simulated test samples, by chance 0.5."""
    index, images = read_index("sample"), open_images("sample")
    rows = dict(zip(index["id"], index["row"].tolist(), strict=True))
    entries = [entry for entry in plan(settings.sample) if entry.split == "test"][:samples]
    judged = [
        judgement
        for entry in entries
        for judgement in judge_sample({"": (network, size)}, images[rows[entry.id]], entry, settings.sample)
    ]
    areas = pd.DataFrame({"kind": [j.kind for j in judged], "auc": [j.auc for j in judged]})
    return {str(kind): float(auc) for kind, auc in areas.groupby("kind")["auc"].mean().items()}


def row(
    name: tuple[str, str],
    decisions: Bools,
    plain: Bools,
    truth: Bools,
    groups: npt.NDArray[np.str_],
    score: params.Score,
) -> dict[str, object]:
    """Scores of one configuration; decisions of all seeds below one another, (seeds * N, 28)."""
    figures = summarise(decisions, truth, groups, score)
    change, _ = difference(plain, decisions, truth, groups, score)
    return {
        "attention": name[0],
        "head": name[1],
        "macro-F1": f"{figures['macro_f1']:.3f} ({figures['macro_f1_low']:.3f} to {figures['macro_f1_high']:.3f})",
        "over none": f"{change.estimate:+.3f} ({change.low:+.3f} to {change.high:+.3f})",
    }


def main(size: int, epochs: int, seeds: int, maps: int) -> pd.DataFrame:
    """Train and score everything; return the table."""
    settings, table = params.load(), read_folds()
    images = {source: open_images(source) for source in table["source"].unique()}
    base = next(iter(settings.models.values())).model_copy(
        update={"channels": CHANNELS, "size": size, "epochs": epochs, "evaluate_every": epochs}
    )
    truth = np.tile(target_matrix(table["target"]), (seeds, 1))
    groups = np.tile(table["group"].to_numpy(dtype=np.str_), seeds)
    rows, plain = [], dict[str, Bools]()
    for attention, head in itertools.product(ATTENTION, HEADS):
        started, decided, first = time.perf_counter(), [], None
        for seed in range(seeds):
            recipe = base.model_copy(update={"attention": attention, "head": head, "seed": seed})
            decisions, network = decide(recipe, table, settings, images)
            decided.append(decisions)
            first = first or network
        together = np.concatenate(decided)
        plain.setdefault(head, together)
        figures = row((attention, head), together, plain[head], truth, groups, settings.score)
        figures["weights, thousands"] = round(sum(weight.numel() for weight in network.parameters()) / 1e3)
        figures["minutes"] = round((time.perf_counter() - started) / 60, 1)
        if maps and first is not None:
            figures |= {f"{kind} auc": round(auc, 3) for kind, auc in judge_maps(first, size, settings, maps).items()}
        say(" ".join(f"{key} {value}" for key, value in figures.items()))
        rows.append(figures)
    scores = pd.DataFrame(rows)
    report(scores, {"configurations": len(scores), "seeds": seeds, "samples": len(table)})
    return scores


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64, help="pixels")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--maps", type=int, default=60, help="simulated test samples to judge maps on; 0 for other sources"
    )
    parser.add_argument("--out", type=Path, help="a Markdown file for the table")
    arguments = parser.parse_args()
    scores = main(arguments.size, arguments.epochs, arguments.seeds, arguments.maps)
    if arguments.out:
        arguments.out.write_text(scores.to_markdown(index=False) + "\n", encoding="utf-8")
