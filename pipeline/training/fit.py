"""The training loop: one network, one fold."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch

from pipeline import params
from pipeline.atlas.batches import Batch, Samples, ordered_batches, training_batches, workers_of
from pipeline.errors import InputError, when_asked_to_stop
from pipeline.model.network import Network
from pipeline.progress import count, say
from pipeline.training import runtime
from pipeline.training.learner import Learner
from pipeline.training.meter import Cost, Meter
from pipeline.training.predict import probabilities
from pipeline.training.ranks import ALONE, Ranks
from pipeline.training.resume import States
from pipeline.training.run import Run


@dataclass(frozen=True)
class Epoch(Cost):
    """What training itself knows of an epoch: its number, the last learning rate, the mean loss, the cost."""

    epoch: int
    learning_rate: float
    train_loss: float


def fit(
    network: Network,
    training: Samples,
    held_out: Samples,
    recipe: params.Model,
    machine: params.Machine,
    on_epoch: Callable[[Epoch, npt.NDArray[np.float32]], float],
    states: States,
    ranks: Ranks = ALONE,
) -> Network:
    """Train, and return the moving average of the network, in evaluation mode, as ``recipe.keep`` has it.

    Args:
        network: with its starting statistics set; trained in place.
        training: the samples to learn from.
        held_out: predicted every ``evaluate_every`` epochs, never learned from.
        recipe: the model's section.
        machine: loader processes, the batch size of predictions, the time between two saves.
        on_epoch: called after each such epoch with its figures and the averaged network's held-out
            probabilities (N, 28); returns the held-out loss. Called again for the epochs of a run that goes on.
        states: where the run is saved, and where an interrupted one goes on from.
        ranks: the processes that train together, each of which calls this; ``on_epoch`` is called in the first.

    Raises:
        InputError: the loss is no longer finite, which names the step; the batch size is no multiple of the
            number of processes; another process was lost (on GPUs all are killed within seconds, without a message).
        Stopped: Ctrl-C or SIGTERM, after the current step and its save.
    """
    if recipe.batch_size % ranks.size:
        raise InputError(f"a batch_size of {recipe.batch_size} cannot be shared by {ranks.size} processes alike")
    runtime.keep_freed_memory()
    workers, share = runtime.workers(machine.workers, ranks.size), (ranks.rank, ranks.size)
    batches, draws = training_batches(training, recipe.batch_size, workers, recipe.repeat, share)
    held_out_batches = ordered_batches(held_out, machine.predict_batch, workers, share)
    steps, images = max(len(batches) // recipe.accumulate, 1), recipe.batch_size * recipe.accumulate
    learner = Learner(network, training.targets.mean(dim=0), recipe, steps, ranks)
    run = Run(learner, states, machine.save_minutes)
    _take_up(run, on_epoch)
    with ranks.together():
        ranks.wait()  # nothing new is saved before each has taken up the same state
    shown = count("training", total=recipe.epochs * steps * images, unit="images", shown=ranks.first)
    with when_asked_to_stop(run.stop), ranks.together(), workers_of(batches, held_out_batches), shown as bar:
        bar.update((run.epoch * steps + run.step) * images)
        for epoch in range(run.epoch, recipe.epochs):
            draws.epoch, draws.begin = epoch, run.step * recipe.accumulate
            meter = Meter(ranks.size)
            for group in islice(grouped(meter.passing(batches), recipe.accumulate), steps - run.step):
                run.stepped(learner.learn(group, epoch * steps + run.step))
                bar.update(images)
            run.look()
            cost = meter.read()
            if (epoch + 1) % recipe.evaluate_every == 0 or epoch + 1 == recipe.epochs:
                predicted = _predict(run, held_out_batches)
                rate = learner.rate(epoch * steps + run.step - 1)
                ended = Epoch(**asdict(cost), epoch=epoch, learning_rate=rate, train_loss=float(np.mean(run.losses)))
                if ranks.first:
                    run.judge(asdict(ended), torch.from_numpy(predicted), on_epoch(ended, predicted))
            run.end_epoch()
    return run.kept()


def _take_up(run: Run, on_epoch: Callable[[Epoch, npt.NDArray[np.float32]], float]) -> None:
    """Go on from the newest state, if there is one, and tell of its epochs again."""
    if run.take_up() and run.learner.ranks.first:
        for figures, seen in run.judged:
            on_epoch(Epoch(**figures), seen.numpy())
        epochs = run.learner.recipe.epochs
        say(f"going on after {run.epoch} of {epochs} epochs and {run.step} steps, saved in {run.states.folder}")


def _predict(run: Run, batches: Iterable[Batch]) -> npt.NDArray[np.float32]:
    """The averaged network's probabilities (N, 28) of all processes' batches."""
    learner = run.learner
    learner.ranks.align(learner.average.network)
    own = probabilities(learner.average.network, run.pausing(batches), precision=learner.recipe.precision)
    return learner.ranks.gather(own)


def grouped(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Lists of ``size`` batches; the last one may be shorter."""
    iterator = iter(batches)
    while group := list(islice(iterator, size)):
        yield group
