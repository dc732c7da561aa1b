"""A training by several processes, as a program: ``python -m tests.training.two_processes FOLDER DEVICES``.

With a third argument, the process of that rank is killed in the second epoch.
"""

import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.core import params
from pipeline.core.entry import run_main
from pipeline.models.network import Network
from pipeline.training.distributed import SINGLE_PROCESS, World, join
from pipeline.training.history import Epoch
from pipeline.training.loop import accumulated, fit
from pipeline.training.saved_states import SavedStates
from pipeline.training.step import Learner
from tests.fixtures.models import TINY
from tests.training.test_loop import MACHINE, SignalAtDraw, two_patterns

# All that is random, or looks at other samples: dropout, gain, batch norm.
RECIPE = TINY.model_copy(
    update={"dropout": 0.3, "epochs": 3, "augment": TINY.augment.model_copy(update={"gain": 1.5}), "label_balance": 0.5}
)
QUERIES = RECIPE.model_copy(update={"head": "label_queries", "pyramid": 16})
RECIPES = {
    "focal": RECIPE,
    "queries": QUERIES,
    "bce": RECIPE.model_copy(update={"loss": {"bce": 1.0}, "accumulate": 2}),
    "asymmetric": RECIPE.model_copy(update={"loss": {"asymmetric": 1.0}}),
    "soft_f1": RECIPE.model_copy(update={"loss": {"soft_f1": 1.0}}),
    "lovasz": RECIPE.model_copy(update={"loss": {"lovasz": 1.0, "focal": 5.0}, "accumulate": 2}),
}
"""Every loss, both heads, and accumulation with a loss of either kind."""
HELD_OUT = 17


class Communication(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Names the collective operations in its block."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d":
            self.seen.append(func.__name__.split(".")[0])
        return func(*args, **(kwargs or {}))


def first_steps(recipe: params.NetworkModel, world: World) -> dict[str, Any]:
    """Two steps on the process's share of the same batches: gradients of the first, both losses, and what was sent."""
    torch.manual_seed(0)
    samples = two_patterns(32)
    samples.targets[::4, 7] = 1
    learner = Learner(Network(recipe), samples.targets.mean(dim=0), recipe, 2, world)
    parts = np.arange(32).reshape(-1, recipe.batch_size)[:, world.rank :: world.size]
    batches = [samples.batch([(0, int(i), 0) for i in part]) for part in parts]
    first, second, *_ = accumulated(batches, recipe.accumulate)
    with Communication() as communication:
        losses = [learner.train_step(first, 0).item()]
    # The first moments are a tenth of the clipped gradients.
    gradients = torch.cat([learner.optimizer.state[weight]["exp_avg"].flatten() for weight in learner._weights])
    state = learner.network.state_dict()
    statistics = torch.cat([value.flatten() for name, value in state.items() if "running" in name])
    losses.append(learner.train_step(second, 1).item())
    sent = communication.seen
    return {
        "losses": losses,
        "gradients": gradients,
        "statistics": statistics,
        "all_reduce": sent.count("allreduce_"),
        "all_gather": sent.count("allgather_"),
        "sent": len(sent),
    }


def train(folder: Path, machine: params.Machine, world: World, killed: int | None) -> None:
    """Train, and save losses and held-out probabilities."""
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
    states = SavedStates(folder / "states", "run")
    fit(Network(RECIPE), training, held_out, RECIPE, machine, on_epoch, states, {}, world)
    if world.is_main:
        np.savez(folder / "result.npz", losses=losses, seen=np.stack(seen))


def main(folder: Path, machine: params.Machine, killed: int | None) -> None:
    """Take the first steps of every recipe, then train with one of them."""
    torch.set_num_threads(1)
    world = join(machine.devices) if machine.devices > 1 else SINGLE_PROCESS
    steps = {name: first_steps(recipe, world) for name, recipe in RECIPES.items()}
    if world.is_main:
        torch.save(steps, folder / "steps.pt")
    train(folder, machine, world, killed)


if __name__ == "__main__":
    arguments = MACHINE.model_copy(update={"devices": int(sys.argv[2]), "save_minutes": 0})
    run_main(lambda: main(Path(sys.argv[1]), arguments, int(sys.argv[3]) if sys.argv[3:] else None))
