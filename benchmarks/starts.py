"""Effect of the initial attention gates on fine-tuning: ``python -m benchmarks.starts``.

A network without attention is trained on one simulated competition. Networks with its weights are then fine-tuned on
another one (other cells, other antibodies): without attention, and with CBAM whose gates start at 1 (``gate_init:
identity``) or as published (``gate_init: paper``, near one half, which halves the output of each pretrained residual
branch). The table shows the held-out scores before the first step and after each epoch, averaged over several seeds on
the same data.

The last line is JSON: the mean average precision before the first step and at the end. The images are simulated.
"""

import argparse
import os
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from benchmarks.interleaved import report
from pipeline.core import hardware, params
from pipeline.core.labels import format_target
from pipeline.core.progress import say, track
from pipeline.data.augment import Augmentation
from pipeline.data.loader import Samples
from pipeline.inference.probabilities import probabilities
from pipeline.models import checkpoint
from pipeline.models.losses import objective
from pipeline.models.network import Network
from pipeline.models.pretrained import start_from_weights
from pipeline.models.provenance import Provenance
from pipeline.simulation.competition import plan
from pipeline.simulation.competition_archive import in_order
from pipeline.simulation.render import render
from pipeline.training import history
from pipeline.training.history import Epoch
from pipeline.training.loop import fit
from pipeline.training.saved_states import SavedStates

STARTS = {
    "plain": {"attention": "none", "gate_init": "identity"},
    "identity": {"attention": "cbam", "gate_init": "identity"},
    "paper": {"attention": "cbam", "gate_init": "paper"},
}
WIDTHS = (24, 48, 96, 192)
SOURCE = "simulated"
MACHINE = params.Machine(workers=0, predict_batch=64, devices=1, save_minutes=60, tensorboard=False)

Halves = tuple[pd.DataFrame, pd.DataFrame, npt.NDArray[np.uint8]]


def simulate(settings: params.Simulation) -> Halves:
    """Simulate a competition: training samples, test samples with their truth, and the images (N, S, S, 4) of both."""
    entries = plan(settings)
    drawn = in_order(partial(render, settings=settings), entries, os.cpu_count() or 1)
    images = np.stack(list(track(drawn, "simulate", total=len(entries))))
    table = pd.DataFrame(
        {
            "source": SOURCE,
            "row": range(len(entries)),
            "target": [format_target(entry.labels) for entry in entries],
            "split": [entry.split for entry in entries],
        }
    )
    return table[table["split"] == "train"], table[table["split"] == "test"], images


def train(
    recipe: params.NetworkModel, halves: Halves, machine: params.Machine, states: Path
) -> tuple[Network, list[history.EpochScores]]:
    """Train on the training samples; score on the test samples before the first step and after each epoch.

    Args:
        recipe: the model's section.
        halves: as from ``simulate``.
        machine: the section machine.
        states: folder for the saved states, from which an interrupted training resumes.
    """
    rest, held_out, images = halves
    by_source = {SOURCE: images}
    training = Samples(
        rest, by_source, recipe.size, augmentation=Augmentation(recipe.augment, recipe.size), seed=recipe.seed
    )
    evaluated = Samples(held_out, by_source, recipe.size)
    prior, truth = training.targets.mean(dim=0), evaluated.targets.numpy() > 0
    torch.manual_seed(recipe.seed)
    network = Network(recipe)
    pixels = images[rest["row"].to_numpy()].reshape(-1, images.shape[-1]) / 255
    network.initialise(prior, torch.from_numpy(pixels.mean(axis=0)), torch.from_numpy(pixels.std(axis=0)))
    start_from_weights(network, recipe)
    loss = objective(recipe, prior)
    rows: list[history.EpochScores] = []

    def on_epoch(epoch: Epoch, predicted: npt.NDArray[np.float32]) -> float:
        rows.append(history.score_epoch(epoch, predicted, truth, prior.numpy(), loss))
        say(history.log_line(rows[-1], recipe.epochs))
        return rows[-1].held_out_loss

    untrained = [evaluated.batch([(0, position, 0) for position in range(len(evaluated))])]
    before = Epoch(images_per_second=0, data_wait=0, memory_gb=0, epoch=-1, learning_rate=0, train_loss=0)
    on_epoch(before, probabilities(network.to(hardware.device()).eval(), untrained, precision=recipe.precision))
    return fit(network, training, evaluated, recipe, machine, on_epoch, SavedStates(states, "run"), {}), rows


def main(sample: params.Simulation, base: params.NetworkModel, epochs: int, seeds: int) -> pd.DataFrame:
    """Pretrain once, fine-tune with every start and seed, and print the learning curves."""
    first = simulate(sample)
    second = simulate(sample.model_copy(update={"seed": sample.seed + 1000}))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "plain.safetensors"
        plain = base.model_copy(update=STARTS["plain"])
        first_states = Path(folder) / "plain"
        checkpoint.save(weights, train(plain, first, MACHINE, first_states)[0], plain, Provenance(complete=False))
        for seed in range(seeds):
            for start, settings in STARTS.items():
                say(f"{start}, seed {seed}")
                update = {**settings, "pretrained": str(weights), "epochs": epochs, "seed": seed}
                states = Path(folder) / f"{start}-{seed}"
                for row in train(base.model_copy(update=update), second, MACHINE, states)[1]:
                    figures = {"loss": row.held_out_loss, "mAP": row.held_out_mean_average_precision}
                    rows += [{"start": start, "epoch": row.epoch + 1, "seed": seed, **figures}]
    curves = (
        pd.DataFrame(rows)
        .groupby(["start", "epoch"], sort=False)
        .agg(loss=("loss", "mean"), mAP=("mAP", "mean"), SD=("mAP", "std"))
        .reset_index()
    )
    ends = {start: curves.loc[curves["start"] == start, "mAP"].iloc[[0, -1]].round(4).tolist() for start in STARTS}
    report(curves, {"n": len(second[1]), "seeds": seeds, "mean_average_precision_first_and_last": ends})
    return curves


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=96, help="image size (pixels, default: %(default)s)")
    parser.add_argument(
        "--train", type=int, default=480, help="training samples of each competition (default: %(default)s)"
    )
    parser.add_argument("--epochs", type=int, default=6, help="of fine-tuning; pretraining takes twice as many")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of fine-tuning (default: %(default)s)")
    arguments = parser.parse_args()
    settings = params.load()
    network = settings.networks[0]
    main(
        settings.sample.model_copy(update={"train": arguments.train, "test": 200, "size": arguments.size}),
        network.model_copy(
            # No moving average: it would lag behind the network and overstate the effect of the start.
            update={
                "widths": WIDTHS,
                "head": "pooled",
                "pretrained": False,
                "size": arguments.size,
                "epochs": 2 * arguments.epochs,
                "ema_decay": 0.0,
                "learning_rate": 0.003,
                "augment": network.augment.model_copy(update={"crop": 1}),
            }
        ),
        arguments.epochs,
        arguments.seeds,
    )
