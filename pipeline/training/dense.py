"""Training on simulated fields whose labels are known at every position: the loop behind the weights that ship."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from pipeline.core import hardware, params, processors
from pipeline.core.errors import InputError, when_asked_to_stop
from pipeline.core.progress import count
from pipeline.data.loader import Batch
from pipeline.inference.probabilities import probabilities
from pipeline.models.network import Network, autocast
from pipeline.training import windows
from pipeline.training.loop import OnEpoch, TrainingRun, resume, train_epoch
from pipeline.training.saved_states import SavedStates
from pipeline.training.step import Learner

DENSE_WEIGHT = 10.0
"""Weight of the loss by position: the two losses then have gradients of about the same size."""


class DenseLearner(Learner):
    """A learner from labels by position.

    ``loss = L(logits, labels in the window) + weight * L(logits by position, labels by position)``, where L is the
    recipe's loss. The second part tells the network in each window which structure is meant, which a label of a whole
    field does not: with it, a given number of steps reaches a much lower loss.

    Args:
        network: trained in place.
        prior: as in ``Learner``.
        recipe: the model's section.
        steps_per_epoch: how many steps an epoch has.
        dense_weight: weight of the second part; 0 leaves it out, as a network without label queries needs.
    """

    def __init__(
        self, network: Network, prior: Tensor, recipe: params.NetworkModel, steps_per_epoch: int, dense_weight: float
    ) -> None:
        super().__init__(network, prior, recipe, steps_per_epoch)
        self.dense_weight = dense_weight

    def _backward(self, batch: Batch, share: float) -> Tensor:
        (images, bits), device = batch, hardware.device()
        images = images.to(device, non_blocking=True)
        positions = windows.labels_of(bits.to(device, non_blocking=True))  # B, 28, h, w
        present, queries = positions.amax((2, 3)), self.network.queries
        if queries is None or not self.dense_weight:
            with autocast(self.recipe.precision):
                logits = self.network(images)
            return self._add_gradients(self._criterion(logits, present) * share)
        with autocast(self.recipe.precision):
            levels = self.network.levels(images)
        dense = queries.position_logits(levels)
        by_position = self._criterion(*(x.permute(0, 2, 3, 1).flatten(0, 2) for x in (dense, positions)))
        return self._add_gradients(
            (self._criterion(queries(levels), present) + self.dense_weight * by_position) * share
        )


def fit_fields(
    network: Network,
    training: windows.Windows,
    prior: Tensor,
    held_out: Sequence[Batch],
    recipe: params.NetworkModel,
    machine: params.Machine,
    on_epoch: OnEpoch,
    states: SavedStates,
    dense_weight: float = DENSE_WEIGHT,
) -> Network:
    """Train on windows of simulated fields, and return the moving average of the network, in evaluation mode.

    Interrupted after any step, the training resumes to the same bytes.

    Args:
        network: with its initial statistics set; trained in place.
        training: windows of the fields.
        prior: (28,) share of the fields with each label.
        held_out: batches of other fields, predicted every ``evaluate_every`` epochs.
        recipe: the model's section; ``accumulate`` must be 1.
        machine: loader processes, the time between two saves.
        on_epoch: as in ``loop.fit``.
        states: where the run is saved.
        dense_weight: see ``DenseLearner``.

    Raises:
        InputError: the model has no label queries for a loss by position, or the loss is no longer finite.
        Stopped: Ctrl-C or SIGTERM, after the current step and its save.
    """
    if recipe.accumulate > 1 or (dense_weight and (network.queries is None or network.pyramid is None)):
        raise InputError("model: labels by position need head label_queries, a pyramid, and accumulate 1")
    hardware.prepare()
    steps, size = training.steps_per_epoch, recipe.batch_size
    run = TrainingRun(DenseLearner(network, prior, recipe, steps, dense_weight), states, machine.save_minutes)
    resume(run, on_epoch)
    first = run.epoch * steps + run.step
    workers = processors.loaders(machine.workers)
    progress = count("training", total=len(training) * size, unit="windows", done=first * size)

    def predict() -> npt.NDArray[np.float32]:
        averaged = run.learner.ema.network
        return probabilities(averaged, run.interruptible(held_out), precision=recipe.precision)

    with when_asked_to_stop(run.stop), windows.open_batches(training, first, workers) as batches, progress as bar:
        while run.epoch < recipe.epochs:
            train_epoch(run, batches, predict, on_epoch, bar.update)
    return run.final_network()
