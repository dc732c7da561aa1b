"""What a training step costs over the network's own: ``python -m benchmarks.training``.

The whole step is `training.fit` as the train stage calls it: loading from a packed array at the size of params.yaml,
augmentation, the step, the moving average. The bare step is forward, loss, backward and optimizer of the
same network on one batch that is in the device's memory. They take turns, an epoch's number of steps each.

On a CPU it is the default run's last model at 128 px; on a GPU a ResNet-34 with CBAM at 512 px in bf16, batches of 64.
The images are noise: neither step depends on what they show.

The last line is JSON: on a CPU ``step_over_bare_cpu``, a ratio of times; on a GPU ``throughput_over_bare_gpu``, and
``hours_of_5_folds``, in which each fold's 30 epochs see 31,072 images.
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
from pipeline.models.network import Network
from pipeline.training.history import Epoch
from pipeline.training.loop import fit
from pipeline.training.saved_states import SavedStates

FULL = 5 * 30 * 31_072
"""Images in five folds of thirty epochs of the competition."""


def default_recipe(settings: params.Params) -> params.Model:
    """The recipe that this machine is measured by."""
    last = settings.networks[-1].model_copy(update={"head": "pooled"})  # a kernel head has no steps
    if not torch.cuda.is_available():
        return last.model_copy(update={"size": 128})
    large = {"backbone": "resnet34", "channels": None, "size": 512, "batch_size": 64, "precision": "bf16"}
    return last.model_copy(update=large)


def packed_noise(folder: Path, count: int, side: int, size: int, recipe: params.Model) -> Samples:
    """Samples of a memory-mapped array (count, side, side, 4), given out augmented at ``size`` pixels."""
    random = np.random.default_rng(0)
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (count, side, side, 4))
    for image in images:
        image[:] = random.integers(0, 256, image.shape, dtype=np.uint8)
    targets = [f"{first} {first + 1}" for first in random.integers(0, 27, count)]
    table = pd.DataFrame({"source": "noise", "row": range(count), "target": targets})
    return Samples(table, {"noise": images}, size, augmentation=Augmentation(recipe.augment, size), seed=recipe.seed)


def bare_step(recipe: params.Model, batch: Batch) -> Callable[[], None]:
    """Forward, loss, backward and optimizer, on a batch that is already where it is needed."""
    device = hardware.device()
    network = Network(recipe).to(device).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    images, targets = (part.to(device) for part in batch)
    criterion = objective(recipe, targets.mean(dim=0).cpu())

    def step() -> None:
        with hardware.autocast(recipe.precision):
            logits = network(images)
        criterion(logits, targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    return step


def measure(recipe: params.Model, machine: params.Machine, steps: int, side: int, rounds: int) -> Seconds:
    """Seconds of ``steps`` steps, whole and bare in turn."""
    seconds: Seconds = {"whole": [], "bare": []}
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
            if epoch.epoch > 0:  # the first one starts the workers and finds the fastest kernels
                seconds["bare"].append(time.perf_counter() - started)
                seconds["whole"].append(images / epoch.images_per_second)
            return epoch.train_loss

        recipe = recipe.model_copy(update={"epochs": rounds + 1, "evaluate_every": 1})
        held_out = Samples(pd.DataFrame({"source": ["noise"], "row": 0, "target": "0"}), training.images, recipe.size)
        fit(Network(recipe), training, held_out, recipe, machine, on_epoch, SavedStates(Path(name) / "cell", "run"))
    return seconds


def main(recipe: params.Model, machine: params.Machine, steps: int, side: int, rounds: int) -> dict[str, float]:
    """Measure, print, and return the figures.

    Args:
        recipe: of the network, the loss and the augmentation.
        machine: loader processes.
        steps: in a round of each case.
        side: of the packed images, pixels.
        rounds: of measurement.
    """
    seconds = measure(recipe, machine, steps, side, rounds)
    table = pd.DataFrame({"case": list(seconds)})
    table["ms a step"] = [1e3 * statistics.median(seconds[case]) / steps for case in seconds]
    table["images a second"] = 1e3 * recipe.batch_size / table["ms a step"]
    speed = float(table["images a second"].iloc[0])
    if torch.cuda.is_available():
        figures = {
            "throughput_over_bare_gpu": ratio(seconds, "bare", "whole"),
            "images_per_second": speed,
            "hours_of_5_folds": FULL / speed / 3600,
        }
    else:
        figures = {
            "step_over_bare_cpu": ratio(seconds, "whole", "bare"),
            "step_over_bare_cpu_medians": ratio_of_medians(seconds, "whole", "bare"),
        }
    report(table, figures)
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=24, help="in a round of each case")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    settings = params.load()
    main(default_recipe(settings), settings.machine, arguments.steps, settings.pack.size, arguments.rounds)
