"""The training loop of one network on one fold, which can be interrupted and resumed after any step."""

import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.core import hardware, params, processors
from pipeline.core.errors import InputError, Stopped, when_asked_to_stop
from pipeline.core.progress import count, say
from pipeline.data.loader import Batch, Batches, Samples, closing_workers, ordered_batches, training_batches
from pipeline.data.sampler import Draws
from pipeline.inference.probabilities import probabilities
from pipeline.models.network import AnyNetwork, Network
from pipeline.training.distributed import SINGLE_PROCESS, World
from pipeline.training.history import Epoch, ThroughputMeter
from pipeline.training.saved_states import SavedStates
from pipeline.training.step import BaseLearner, Learner

CHECK_LOSSES_EVERY = 50
"""Steps between two checks of the losses; each check waits for the device."""

OnEpoch = Callable[[Epoch, npt.NDArray[np.float32]], float]
"""Takes an epoch and the held-out probabilities (N, 28); returns the held-out loss."""

T = TypeVar("T")


def fit(
    network: Network,
    training: Samples,
    held_out: Samples,
    recipe: params.NetworkModel,
    machine: params.Machine,
    on_epoch: OnEpoch,
    states: SavedStates,
    draws_by_source: Mapping[str, float],
    world: World = SINGLE_PROCESS,
) -> Network:
    """Train, and return the moving average of the network, in evaluation mode.

    Args:
        network: with its initial statistics set; trained in place.
        training: the samples to learn from.
        held_out: predicted every ``evaluate_every`` epochs, never learned from.
        recipe: the model's section.
        machine: loader processes, the batch size of predictions, the time between two saves.
        on_epoch: called in the main process after each such epoch with its figures and the averaged network's held-out
            probabilities. A resumed run calls it again for its earlier epochs.
        states: where the run is saved, and what an interrupted one resumes from.
        draws_by_source: as in ``training_batches``.
        world: the processes that train together, each of which calls this function.

    Raises:
        InputError: the loss is no longer finite (the message names the step); several processes cannot share the
            batches evenly; another process was lost (on GPUs all are killed within seconds, without a message).
        Stopped: Ctrl-C or SIGTERM, after the current step and its save.
    """
    check_shares(recipe.batch_size, len(training), world.size)
    hardware.prepare()
    workers, share = processors.loaders(machine.workers, world.size), (world.rank, world.size)
    batches, draws = training_batches(training, recipe.batch_size, workers, recipe.repeat, draws_by_source, share)
    held_out_batches = ordered_batches(held_out, machine.predict_batch, workers, share)
    steps = max(len(batches) // recipe.accumulate, 1)
    run = TrainingRun(
        Learner(network, training.targets.mean(dim=0), recipe, steps, world), states, machine.save_minutes
    )
    return train_epochs(run, batches, draws, lambda: _predict(run, held_out_batches), on_epoch, held_out_batches)


def train_epochs(
    run: "TrainingRun[AnyNetwork]",
    batches: Batches,
    draws: Draws,
    predict: Callable[[], npt.NDArray[np.float32]],
    on_epoch: OnEpoch,
    held_out_batches: Batches,
) -> AnyNetwork:
    """Resume a run, train its remaining epochs, and return the moving average of its network, in evaluation mode.

    Args:
        run: a new one.
        batches: of the training samples; ``draws`` are theirs.
        draws: their epoch and first batch are set here.
        predict: what the averaged network makes of the held-out samples, as in ``train_epoch``.
        on_epoch: as in ``fit``.
        held_out_batches: their workers, too, are stopped at the end.

    Raises:
        InputError: as in ``fit``.
        Stopped: as in ``fit``.
    """
    learner = run.learner
    recipe, world, steps = learner.recipe, learner.world, learner.steps_per_epoch
    images = recipe.batch_size * recipe.accumulate
    world.broadcast(learner.network)
    resume(run, on_epoch)
    with world.explain_lost_process():
        world.barrier()  # nothing new is saved before every process has loaded the same state
    done = (run.epoch * steps + run.step) * images
    progress = count("training", total=recipe.epochs * steps * images, unit="images", shown=world.is_main, done=done)
    with (
        when_asked_to_stop(run.stop),
        world.explain_lost_process(),
        closing_workers(batches, held_out_batches),
        progress as bar,
    ):
        while run.epoch < recipe.epochs:
            draws.epoch, draws.begin = run.epoch, run.step * recipe.accumulate
            train_epoch(run, batches, predict, on_epoch, bar.update)
    return run.final_network()


@dataclass
class TrainingRun(Generic[AnyNetwork]):
    """The progress of a training run, which is saved at intervals.

    Args:
        learner: the network, its optimizer and its moving average.
        states: where it is saved.
        save_minutes: the longest time between two saves; 0 saves after every step.
        epoch: epochs completed, including their evaluation where one was due.
        step: steps taken in the current epoch.
        losses: of those steps, as far as they were checked.
        evaluated: the figures of each evaluated epoch, and its held-out probabilities (N, 28).
        best: the lowest held-out loss and the averaged network's weights at that time, if those are to be kept.
    """

    learner: BaseLearner[AnyNetwork]
    states: SavedStates
    save_minutes: float
    epoch: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)
    evaluated: list[tuple[dict[str, Any], Tensor]] = field(default_factory=list)
    best: tuple[float, dict[str, Tensor]] | None = None
    _unchecked: list[Tensor] = field(default_factory=list)
    _saved: float = field(default_factory=time.monotonic)
    _stop: signal.Signals | None = None

    def resume(self) -> bool:
        """Load the newest state, if there is one."""
        state = self.states.newest()
        if state is None:
            return False
        self.learner.load_state_dict(state.pop("learner"))
        for name, value in state.items():
            setattr(self, name, value)
        return True

    def stop(self, by: signal.Signals) -> None:
        """Request a stop after the current step; a second signal stops at once.

        Of several processes, the main one saves and ends, and the others with it: until then it needs them.
        """
        if not self.learner.world.is_main:
            return
        if self._stop is not None:
            raise Stopped(by)
        self._stop = by

    def record_step(self, loss: Tensor) -> None:
        """Count a step and its loss; save or stop if that is due.

        Raises:
            InputError: a loss is no longer finite; names the step.
            Stopped: a signal came.
        """
        self.step += 1
        self._unchecked.append(loss)
        if len(self._unchecked) == CHECK_LOSSES_EVERY:
            self.check_losses()
        self.save_or_stop()

    def record_epoch(self, figures: dict[str, Any], held_out: Tensor, held_out_loss: float) -> None:
        """Record an evaluated epoch, and its weights if they are the best so far and those are to be kept."""
        self.evaluated.append((figures, held_out))
        if self.learner.recipe.keep == "best_loss" and (self.best is None or held_out_loss < self.best[0]):
            weights = self.learner.ema.network.state_dict()
            self.best = held_out_loss, {name: value.clone() for name, value in weights.items()}

    def final_network(self) -> AnyNetwork:
        """The averaged network, as it is now or as it was at its best."""
        network = self.learner.ema.network
        if self.best is not None:
            network.load_state_dict(self.best[1])
        return network

    def end_epoch(self) -> None:
        """Begin the next epoch, save, and stop if a signal came.

        Raises:
            Stopped: after saving.
        """
        self.epoch, self.step, self.losses = self.epoch + 1, 0, []
        self.save()
        self._stop_if_asked()

    def save_or_stop(self) -> None:
        """Save if that is due, and stop if a signal came.

        Raises:
            Stopped: after saving.
        """
        if self._stop is not None or time.monotonic() - self._saved >= 60 * self.save_minutes:
            self.save()
        self._stop_if_asked()

    def interruptible(self, items: Iterable[T]) -> Iterator[T]:
        """Yield items of work that changes nothing in the run, and stop in between if a signal came."""
        for item in items:
            yield item
            if self._stop is not None:
                self.save_or_stop()

    def check_losses(self) -> None:
        """Fetch the losses that are still on the device.

        Raises:
            InputError: one of them is not finite; names its step.
        """
        if not self._unchecked:
            return
        for loss in torch.stack(self._unchecked).tolist():
            if not math.isfinite(loss):
                step = self.epoch * self.learner.steps_per_epoch + len(self.losses)
                raise InputError(
                    f"the loss is {loss} at step {step} (epoch {self.epoch}): "
                    "lower the model's learning_rate, or check its images"
                )
            self.losses.append(loss)
        self._unchecked = []

    def save(self) -> None:
        """Save the whole state, in the main process only."""
        self.check_losses()
        self._saved = time.monotonic()
        if not self.learner.world.is_main:
            return
        state = {name: getattr(self, name) for name in ("epoch", "step", "losses", "evaluated", "best")}
        self.states.save(self.epoch, self.step, state | {"learner": self.learner.state_dict()})

    def _stop_if_asked(self) -> None:
        if self._stop is not None:
            say(f"{self.epoch} epochs and {self.step} steps are saved in {self.states.folder}")
            raise Stopped(self._stop)


def train_epoch(
    run: TrainingRun[AnyNetwork],
    batches: Iterable[Batch],
    predict: Callable[[], npt.NDArray[np.float32]],
    on_epoch: OnEpoch,
    update: Callable[[int], object],
) -> None:
    """Train the rest of the current epoch, and evaluate the averaged network if that is due.

    Args:
        run: the progress so far; its next epoch begins.
        batches: the rest of the epoch's, or more.
        predict: returns the averaged network's held-out probabilities (N, 28).
        on_epoch: as in ``fit``.
        update: called with the number of images of each step.

    Raises:
        InputError: a loss is no longer finite.
        Stopped: a signal came, and the run is saved.
    """
    learner, recipe, epoch = run.learner, run.learner.recipe, run.epoch
    first, meter = epoch * learner.steps_per_epoch, ThroughputMeter(learner.world.size)
    groups = accumulated(meter.measured(batches), recipe.accumulate)
    for group in islice(groups, learner.steps_per_epoch - run.step):
        run.record_step(learner.train_step(group, first + run.step))
        update(recipe.batch_size * recipe.accumulate)
    run.check_losses()
    cost = meter.read()
    if (epoch + 1) % recipe.evaluate_every == 0 or epoch + 1 == recipe.epochs:
        predicted = predict()
        rate = learner.learning_rate(first + run.step - 1)
        ended = Epoch(**asdict(cost), epoch=epoch, learning_rate=rate, train_loss=float(np.mean(run.losses)))
        if learner.world.is_main:
            run.record_epoch(asdict(ended), torch.from_numpy(predicted), on_epoch(ended, predicted))
    run.end_epoch()


def accumulated(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Lists of ``size`` batches for gradient accumulation; the last one may be shorter."""
    iterator = iter(batches)
    while group := list(islice(iterator, size)):
        yield group


def resume(run: TrainingRun[AnyNetwork], on_epoch: OnEpoch) -> None:
    """Resume from the newest state, if there is one, and report its epochs again."""
    if run.resume() and run.learner.world.is_main:
        for figures, predicted in run.evaluated:
            on_epoch(Epoch(**figures), predicted.numpy())
        epochs = run.learner.recipe.epochs
        say(f"resuming after {run.epoch} of {epochs} epochs and {run.step} steps, saved in {run.states.folder}")


def check_shares(batch_size: int, samples: int, processes: int) -> None:
    """Check that several processes can share the batches.

    Raises:
        InputError: they cannot.
    """
    if batch_size % processes:
        raise InputError(f"a batch_size of {batch_size} cannot be split evenly over {processes} processes")
    if processes > 1 and samples < batch_size:
        raise InputError(f"{samples} samples are fewer than a batch of {batch_size}: use one process")


def _predict(run: TrainingRun[Network], batches: Iterable[Batch]) -> npt.NDArray[np.float32]:
    """The averaged network's probabilities (N, 28), gathered from all processes."""
    learner = run.learner
    learner.world.broadcast(learner.ema.network)
    own = probabilities(learner.ema.network, run.interruptible(batches), precision=learner.recipe.precision)
    return learner.world.gather(own)
