"""Attention blocks and heads compared at the scale of the weights that ship: ``python -m benchmarks.comparison``.

Every combination of attention and head is trained from random weights, with several seeds, on windows of the same
simulated fields (those of the profile of the weights), and judged on simulated fields of other antibodies and, with
``--real FOLDER``, on real fields (a folder as for benchmarks.real_fields). All combinations share one recipe, number of
steps and order of windows; the loss is that of the labels in the window, because a pooled head has no logits by
position.

A score is the mean over labels of the average precision (and of the ROC AUC), averaged over the seeds. Intervals are
95 % by a bootstrap over antibodies (real fields: over fields) and over seeds at once; the difference to no attention
with the same head uses the same resamples.

Trainings take hours. Each keeps its predictions in ``.resume/comparison/``, and an interrupted one resumes, so the same
command can be stopped and started as often as needed. The tables are of the trainings finished so far, after each seed;
``--out`` writes them as Markdown. The last line is JSON.
"""

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from benchmarks.interleaved import report
from benchmarks.real_fields import BATCH, label_mean, ranking, read_truth, scored_labels
from pipeline.core import code_digest, params, paths, processors
from pipeline.core.entry import run_main
from pipeline.core.labels import target_matrix
from pipeline.core.paths import replacing
from pipeline.core.progress import say
from pipeline.evaluation.metrics import Bools, Floats
from pipeline.inference.new_images import batches, open_places
from pipeline.inference.probabilities import VIEWS, probabilities
from pipeline.models.network import Network
from pipeline.simulation.competition import Entry, plan
from pipeline.simulation.competition_archive import targets
from pipeline.simulation.field_store import Shard, draw_fields, folder_of
from pipeline.sources.images import shrink_quickly
from pipeline.training.dense import fit_fields
from pipeline.training.history import Epoch
from pipeline.training.saved_states import SavedStates, fingerprint
from pipeline.training.windows import Windows

ATTENTION = ("none", "channel", "spatial", "cbam", "nonlocal", "self")
HEADS = ("pooled", "label_queries")
KEPT = paths.RESUME / "comparison"
RESAMPLES = 1000
CONFIDENCE = 0.95
MACHINE = params.Machine(workers="auto", predict_batch=BATCH, devices=1, save_minutes=5, tensorboard=False)

Images = npt.NDArray[np.uint8]
Configuration = tuple[str, str]
"""Attention and head."""


@dataclass(frozen=True)
class Judge:
    """Samples that no network has seen.

    Attributes:
        name: title of the table.
        images: (N, S, S, 4) at the networks' size.
        truth: (N, 28).
        groups: (N,) what is resampled as a whole.
        views: test-time augmentation.
    """

    name: str
    images: Images
    truth: Bools
    groups: npt.NDArray[np.str_]
    views: tuple[str, ...]


@dataclass(frozen=True)
class Fields:
    """What the networks learn from: shards of windows' fields, and the share of the fields with each label (28,)."""

    shards: list[Shard]
    prior: torch.Tensor


def draw(profile: params.WeightsProfile, count: int) -> tuple[Fields, Judge]:
    """Draw the first ``count`` training fields of the profile, and its held-out fields, unless they are there."""
    size = profile.model.size
    folder, workers = folder_of(profile.fields, size), processors.workers(MACHINE.workers)
    entries = plan(profile.fields)
    train = [entry for entry in entries if entry.split == "train"][:count]
    test = [entry for entry in entries if entry.split == "test"]
    shards = draw_fields(folder / "train", train, profile.fields, size, workers)
    unseen = draw_fields(folder / "test", test, profile.fields, size, workers)
    prior = torch.from_numpy(_truth(train).mean(axis=0, dtype=np.float32))
    groups = np.array([entry.group for entry in test])
    images = np.concatenate([shard.images for shard in unseen])
    return Fields(shards, prior), Judge("simulated fields", images, _truth(test), groups, ("identity",))


def read_real(folder: Path, size: int) -> Judge:
    """Read real fields; each is its own group, because their antibodies are unknown."""
    with open_places([folder]) as archive:
        ids, truth = read_truth(archive)
        images = np.concatenate([part for _, part in batches(archive, ids, max(size, 512), BATCH)])
    small = np.stack([shrink_quickly(image, size) for image in images])
    return Judge("real fields", small, truth, np.array(ids), tuple(VIEWS))


def train(recipe: params.NetworkModel, fields: Fields, name: str, run: str) -> Network:
    """Train one network from random weights."""
    torch.manual_seed(recipe.seed)
    network = Network(recipe)
    network.initialise(fields.prior, torch.zeros(4), torch.ones(4))
    windows = Windows([shard.images for shard in fields.shards], [shard.bits for shard in fields.shards], recipe)

    def on_epoch(epoch: Epoch, _predicted: Floats) -> float:
        say(f"{name}: loss {epoch.train_loss:.4f}, {epoch.images_per_second:.0f} windows/s")
        return epoch.train_loss

    states = SavedStates(KEPT / "states" / name, run)
    return fit_fields(network, windows, fields.prior, [], recipe, MACHINE, on_epoch, states, dense_weight=0)


def predictions(recipe: params.NetworkModel, fields: Fields, judges: Sequence[Judge], name: str) -> dict[str, Floats]:
    """Probabilities (N, 28) for each judge, of a network trained now or earlier."""
    code = "".join(map(code_digest.of_module, ("pipeline.training.dense", "pipeline.simulation.field_store")))
    run = fingerprint(f"{recipe.model_dump_json()} {len(fields.shards)} {code}", [])
    path = KEPT / f"{name}-{run}.npz"
    if path.exists():
        with np.load(path) as kept:
            found = {judge.name: kept[judge.name] for judge in judges if judge.name in kept}
        if len(found) == len(judges):
            return found
    network = train(recipe, fields, name, run)
    found = {}
    for judge in judges:
        parts = np.split(judge.images, range(BATCH, len(judge.images), BATCH))
        batched = [(torch.from_numpy(part).permute(0, 3, 1, 2), torch.empty(0)) for part in parts]
        found[judge.name] = probabilities(network, batched, views=judge.views, precision=recipe.precision)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **found)
    SavedStates(KEPT / "states" / name, run).remove_job()
    return found


def score_seeds(judge: Judge, by_seed: Sequence[Floats], weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean AUC and mean average precision of each seed in each weighting of the samples (R, N): (2, R, seeds)."""
    labels = scored_labels(judge.truth)

    def of_seed(probabilities: Floats) -> npt.NDArray[np.float64]:
        by_label = [ranking(judge.truth[:, label], probabilities[:, label], weights) for label in labels]
        return np.stack([label_mean(scores) for scores in np.stack(by_label, axis=-1)])

    return np.stack([of_seed(probabilities) for probabilities in by_seed], axis=-1)


def tabulate(judge: Judge, kept: dict[Configuration, list[Floats]]) -> pd.DataFrame:
    """A row per configuration: its scores, and their differences to no attention with the same head."""
    rng = np.random.default_rng(0)
    names, group = np.unique(judge.groups, return_inverse=True)
    drawn = rng.integers(len(names), size=(RESAMPLES, len(names)))
    counts = np.stack([np.bincount(row, minlength=len(names)) for row in drawn])
    weights = np.concatenate([np.ones((1, len(group))), counts[:, group]])
    rows, plain = [], dict[str, npt.NDArray[np.float64]]()
    for (attention, head), by_seed in kept.items():
        seeds = np.random.default_rng(1).integers(len(by_seed), size=(RESAMPLES, len(by_seed)))
        scores = score_seeds(judge, by_seed, weights)  # 2, 1 + R, seeds
        chosen = np.concatenate([np.arange(len(by_seed))[None], seeds])
        means = np.take_along_axis(scores, chosen[None].repeat(2, axis=0), axis=2).mean(axis=2)  # 2, 1 + R
        row = {"attention": attention, "head": head, "seeds": len(by_seed)}
        row |= {name: interval(of, ".3f") for name, of in zip(("mean AUC", "mean AP"), means, strict=True)}
        plain.setdefault(head, means)
        rows.append(row | {"AP, difference to none": interval((means - plain[head])[1], "+.3f")})
    return pd.DataFrame(rows)


def interval(scores: npt.NDArray[np.float64], style: str) -> str:
    """A score and its percentile interval as text, from (1 + R,): the score, then that of each resample."""
    ends = np.nanquantile(scores[1:], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    value, low, high = (format(number, style) for number in (scores[0], *ends))
    return f"{value} ({low} to {high})"


def main(
    profile: Path, fields: int, epochs: int, seeds: int, attention: Sequence[str], real: Path | None, out: Path | None
) -> None:
    """Train what is missing, seed by seed, and print and write the tables after each; arguments as in the command."""
    settings = params.load_weights_profile(profile)
    learned, simulated = draw(settings, fields)
    judges = [simulated] + ([read_real(real, settings.model.size)] if real else [])
    kinds: list[Configuration] = [*itertools.product(dict.fromkeys(("none", *attention)), HEADS)]
    kept: dict[Configuration, list[Floats]]
    by_judge: dict[str, dict[Configuration, list[Floats]]] = {
        judge.name: {kind: [] for kind in kinds} for judge in judges
    }
    for seed in range(seeds):
        for kind, head in kinds:
            update = {"attention": kind, "head": head, "seed": seed, "epochs": epochs, "evaluate_every": epochs}
            recipe = settings.model.model_copy(update=update)
            found = predictions(recipe, learned, judges, f"{kind}-{head}-{seed}")
            for judge in judges:
                by_judge[judge.name][kind, head].append(found[judge.name])
        sections = []
        for judge in judges:
            kept = by_judge[judge.name]
            table = tabulate(judge, kept)
            sections.append(f"## {judge.name}: n = {len(judge.truth)}\n\n{table.to_markdown(index=False)}\n")
            report(table, {"judge": judge.name, "n": len(judge.truth), "seeds": seed + 1, "fields": fields})
        if out:
            with replacing(out) as temporary:
                temporary.write_text("\n".join(sections), encoding="utf-8")


def _truth(entries: Sequence[Entry]) -> Bools:
    return target_matrix(targets(entries)["Target"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", type=Path, default=Path("weights/cells.yaml"), help="(default: %(default)s)")
    parser.add_argument("--fields", type=int, default=4000, help="training fields (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=6, help="windows of each field (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of each configuration (default: %(default)s)")
    others = [kind for kind in ATTENTION if kind != "none"]
    parser.add_argument(
        "--attention", nargs="+", choices=others, default=others[:-1], help="types to compare with none"
    )
    parser.add_argument("--real", metavar="FOLDER", type=Path, help="real fields to judge on as well")
    parser.add_argument("--out", metavar="FILE.md", type=Path, help="write the tables here")
    run_main(lambda: main(**vars(parser.parse_args())))
