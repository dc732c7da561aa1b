"""Overhead of the training loop over the bare network: ``python -m benchmarks.training``.

The full step is the training loop as the stage ``train`` calls it: loading from a packed array of the size in
params.yaml, augmentation, the optimizer step and the EMA. The bare step is forward, loss, backward and optimizer of the
same network on one batch in device memory. They alternate, an epoch of steps each.

The network is the last one of params.yaml with a pooled head, on whole images of 128 px. The images are noise, on which
the time does not depend. ``benchmarks.gpu`` measures on a GPU.

The last line is JSON: ``step_over_bare_cpu``, a ratio of times.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from benchmarks.interleaved import Seconds, ratio, ratio_of_medians, report
from pipeline.core import hardware, params
from pipeline.data.augment import Augmentation
from pipeline.data.loader import Batch, Samples
from pipeline.models.losses import objective
from pipeline.models.network import Network, autocast
from pipeline.training.history import Epoch
from pipeline.training.loop import fit
from pipeline.training.saved_states import SavedStates

STORED = 512
"""Maximum number of images of noise."""
SIZE = 128
"""Side of the network's images in pixels."""


def packed_noise(folder: Path, count: int, side: int, size: int, recipe: params.NetworkModel) -> Samples:
    """``count`` samples of a memory-mapped array of noise (N, side, side, 4), augmented at ``size`` pixels.

    The array has at most ``STORED`` images, which the samples share.
    """
    random = np.random.default_rng(0)
    stored = min(count, STORED)
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (stored, side, side, 4))
    for image in images:
        image[:] = random.integers(0, 256, image.shape, dtype=np.uint8)
    targets = [f"{first} {first + 1}" for first in random.integers(0, 27, count)]
    table = pd.DataFrame({"source": "noise", "row": np.arange(count) % stored, "target": targets})
    return Samples(table, {"noise": images}, size, augmentation=Augmentation(recipe.augment, size), seed=recipe.seed)


def bare_step(recipe: params.NetworkModel, batch: Batch) -> Callable[[], None]:
    """Return a function that takes a bare step: forward, loss, backward and optimizer on a batch on the device."""
    device = hardware.device()
    network = Network(recipe).to(device).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    images, targets = (part.to(device) for part in batch)
    criterion = objective(recipe, targets.mean(dim=0))
    forward = torch.compile(network, fullgraph=True) if recipe.compile else network

    def step() -> None:
        with autocast(recipe.precision):
            logits = forward(images)
        criterion(logits, targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    return step


def measure(recipe: params.NetworkModel, machine: params.Machine, steps: int, side: int, rounds: int) -> Seconds:
    """Seconds of ``steps`` steps, full and bare, in interleaved rounds."""
    seconds: Seconds = {"full": [], "bare": []}
    images = steps * recipe.batch_size
    with tempfile.TemporaryDirectory() as name:
        training = packed_noise(Path(name), images, side, recipe.size, recipe)
        step = bare_step(recipe, training.batch([(0, position, 0) for position in range(recipe.batch_size)]))

        def on_epoch(epoch: Epoch, _: npt.NDArray[np.float32]) -> float:
            started = time.perf_counter()
            for _step in range(steps):
                step()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if epoch.epoch > 0:  # the first epoch starts the workers and selects kernels
                seconds["bare"].append(time.perf_counter() - started)
                seconds["full"].append(images / epoch.images_per_second)
            return epoch.train_loss

        recipe = recipe.model_copy(update={"epochs": rounds + 1, "evaluate_every": 1})
        held_out = Samples(pd.DataFrame({"source": ["noise"], "row": 0, "target": "0"}), training.images, recipe.size)
        fit(Network(recipe), training, held_out, recipe, machine, on_epoch, SavedStates(Path(name) / "job", "run"), {})
    return seconds


def main(recipe: params.NetworkModel, machine: params.Machine, steps: int, side: int, rounds: int) -> dict[str, float]:
    """Measure, print, and return the figures.

    Args:
        recipe: the model's section.
        machine: the section machine.
        steps: steps of each case per round.
        side: size of the packed images (pixels).
        rounds: measured rounds.
    """
    seconds = measure(recipe, machine, steps, side, rounds)
    table = pd.DataFrame({"case": list(seconds)})
    table["ms per step"] = [1e3 * statistics.median(seconds[case]) / steps for case in seconds]
    table["images per second"] = 1e3 * recipe.batch_size / table["ms per step"]
    figures = {
        "step_over_bare_cpu": ratio(seconds, "full", "bare"),
        "step_over_bare_cpu_medians": ratio_of_medians(seconds, "full", "bare"),
    }
    report(table, figures)
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=24, help="steps of each case per round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="measured rounds (default: %(default)s)")
    arguments = parser.parse_args()
    settings = params.load()
    last = settings.networks[-1]
    whole = {"head": "pooled", "size": SIZE, "augment": last.augment.model_copy(update={"crop": 1.0})}
    network = last.model_copy(update=whole)
    main(network, settings.machine, arguments.steps, settings.pack.size, arguments.rounds)
