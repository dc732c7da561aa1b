"""The training loop: one network, one fold."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import torch

from pipeline import params
from pipeline.atlas.batches import Samples, ordered_batches, training_batches
from pipeline.errors import when_asked_to_stop
from pipeline.model.network import Network
from pipeline.progress import count, say
from pipeline.training import runtime
from pipeline.training.learner import Learner
from pipeline.training.predict import probabilities
from pipeline.training.resume import States
from pipeline.training.run import Run


@dataclass(frozen=True)
class Epoch:
    """What training itself knows of an epoch: its number, the last learning rate, the mean loss, the speed."""

    epoch: int
    learning_rate: float
    train_loss: float
    images_per_second: float


def fit(
    network: Network,
    training: Samples,
    held_out: Samples,
    recipe: params.Model,
    machine: params.Machine,
    on_epoch: Callable[[Epoch, npt.NDArray[np.float32]], str],
    states: States,
) -> Network:
    """Train, and return the moving average of the network, in evaluation mode.

    Args:
        network: with its starting statistics set; trained in place.
        training: the samples to learn from.
        held_out: predicted every ``evaluate_every`` epochs, never learned from and never used to choose an epoch.
        recipe: the model's section.
        machine: loader processes, the batch size of predictions, the time between two saves.
        on_epoch: called after each such epoch with its figures and the averaged network's held-out
            probabilities (N, 28); returns the line to log. Called again for the epochs of a run that goes on.
        states: where the run is saved, and where an interrupted one goes on from.

    Raises:
        InputError: the loss is no longer finite; names the step.
        Stopped: Ctrl-C or SIGTERM, after the current step and its save.
    """
    workers = runtime.workers(machine.workers)
    batches, draws = training_batches(training, recipe.batch_size, workers, recipe.repeat)
    held_out_batches = ordered_batches(held_out, machine.predict_batch, workers)
    learner = Learner(network, training.targets.mean(dim=0), recipe, len(batches))
    run = Run(learner, states, machine.save_minutes)
    if run.take_up():
        for figures, seen in run.judged:
            say(on_epoch(Epoch(**figures), seen.numpy()))
        say(f"going on after {run.epoch} of {recipe.epochs} epochs and {run.step} steps, saved in {states.folder}")
    with (
        when_asked_to_stop(run.stop),
        count("training", total=recipe.epochs * len(batches) * recipe.batch_size, unit="images") as bar,
    ):
        bar.update((run.epoch * len(batches) + run.step) * recipe.batch_size)
        for epoch in range(run.epoch, recipe.epochs):
            draws.epoch, draws.begin = epoch, run.step
            began, started = run.step, time.perf_counter()
            for batch in batches:
                run.stepped(learner.learn(batch, epoch * len(batches) + run.step))
                bar.update(recipe.batch_size)
            run.look()
            speed = (run.step - began) * recipe.batch_size / (time.perf_counter() - started)
            if (epoch + 1) % recipe.evaluate_every == 0 or epoch + 1 == recipe.epochs:
                looked_at = run.pausing(held_out_batches)
                predicted = probabilities(learner.average.network, looked_at, precision=recipe.precision)
                rate = learner.rate(epoch * len(batches) + run.step - 1)
                ended = Epoch(epoch, rate, float(np.mean(run.losses)), speed)
                run.judged.append((asdict(ended), torch.from_numpy(predicted)))
                say(on_epoch(ended, predicted))
            run.end_epoch()
    return learner.average.network
