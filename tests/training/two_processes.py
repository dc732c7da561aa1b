"""A training by several processes, as a program: ``python -m tests.training.two_processes FOLDER DEVICES``.

With a third argument, the process of that rank is killed in the second epoch.
"""

import signal
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from pipeline.core import params
from pipeline.core.entry import run_main
from pipeline.models.network import Network
from pipeline.training.distributed import join
from pipeline.training.history import Epoch
from pipeline.training.loop import fit
from pipeline.training.saved_states import SavedStates
from tests.fixtures.models import TINY
from tests.training.test_loop import MACHINE, SignalAtDraw, two_patterns

# Every process draws dropout and gain for its own images.
RECIPE = TINY.model_copy(update={"dropout": 0.0, "epochs": 3, "augment": TINY.augment.model_copy(update={"gain": 1})})
HELD_OUT = 17


def without_batch_norm(network: Network) -> Network:
    """Fix the statistics, which on a CPU depend on how many samples a process has."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
            module.train = lambda mode=True, module=module: module  # type: ignore[method-assign,misc]  # noqa: ARG005
    return network


def main(folder: Path, machine: params.Machine, killed: int | None) -> None:
    """Train, and save losses and held-out probabilities."""
    torch.set_num_threads(1)
    world = join(machine.devices)
    training, held_out = two_patterns(32), two_patterns(HELD_OUT + 1)
    held_out.rows, held_out.sources = held_out.rows[:HELD_OUT], held_out.sources[:HELD_OUT]
    losses: list[float] = []
    seen: list[npt.NDArray[np.float32]] = []

    def on_epoch(epoch: Epoch, predicted: npt.NDArray[np.float32]) -> float:
        losses.append(epoch.train_loss)
        seen.append(predicted)
        return epoch.train_loss

    if world.rank == killed:
        training.augmentation = SignalAtDraw(signal.SIGKILL, 32 // world.size + 4 + 1)
    torch.manual_seed(0)
    network = without_batch_norm(Network(RECIPE))
    fit(network, training, held_out, RECIPE, machine, on_epoch, SavedStates(folder / "states", "run"), world)
    if world.is_main:
        np.savez(folder / "result.npz", losses=losses, seen=np.stack(seen))


if __name__ == "__main__":
    arguments = MACHINE.model_copy(update={"devices": int(sys.argv[2]), "save_minutes": 0})
    run_main(lambda: main(Path(sys.argv[1]), arguments, int(sys.argv[3]) if sys.argv[3:] else None))
