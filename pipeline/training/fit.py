"""The training loop: one network, one fold."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from pipeline import params
from pipeline.atlas.batches import Samples, ordered_batches, training_batches
from pipeline.errors import InputError
from pipeline.model.losses import objective
from pipeline.model.network import Network
from pipeline.progress import count, say
from pipeline.training import runtime
from pipeline.training.average import moving_average
from pipeline.training.predict import probabilities
from pipeline.training.resume import States
from pipeline.training.schedule import learning_rate


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
        machine: loader processes and the batch size of predictions.
        on_epoch: called after each such epoch with its figures and the averaged network's held-out
            probabilities (N, 28); returns the line to log. Called again for the epochs of a run that goes on.
        states: where the end of every epoch is saved, and where an interrupted run goes on from.

    Raises:
        InputError: the loss is no longer finite; names the step.
    """
    workers = runtime.workers(machine.workers)
    network = network.to(runtime.device()).to(memory_format=torch.channels_last)
    criterion = objective(recipe, training.targets.mean(dim=0))
    optimizer = torch.optim.AdamW(_groups(network, recipe.weight_decay), fused=True)
    average = moving_average(network, recipe.ema_decay)
    averaged = cast(Network, average.module)
    batches, draws = training_batches(training, recipe.batch_size, workers, recipe.repeat)
    held_out_batches = ordered_batches(held_out, machine.predict_batch, workers)
    steps = len(batches) * recipe.epochs
    judged: list[tuple[dict[str, Any], Tensor]] = []
    begin = 0
    if (state := states.newest()) is not None:
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        judged, begin = state["judged"], state["epochs"]
        for figures, seen in judged:
            say(on_epoch(Epoch(**figures), seen.numpy()))
        say(f"going on after epoch {begin} of {recipe.epochs}, saved in {states.folder}")
    with count("training", total=steps * recipe.batch_size, unit="images") as bar:
        bar.update(begin * len(batches) * recipe.batch_size)
        for epoch in range(begin, recipe.epochs):
            # Dropout is the only randomness in here; it must not depend on what ran before this epoch.
            torch.manual_seed(int(np.random.SeedSequence((recipe.seed, epoch)).generate_state(1)[0]))
            draws.epoch = epoch
            started = time.perf_counter()
            losses = []
            for step, (images, targets) in enumerate(batches, start=epoch * len(batches)):
                rate = learning_rate(step, steps=steps, peak=recipe.learning_rate, warmup=recipe.warmup)
                losses.append(_step(network, images, targets, criterion, optimizer, rate, average, recipe))
                if not math.isfinite(losses[-1]):
                    raise InputError(
                        f"the loss is {losses[-1]} at step {step} (epoch {epoch}): "
                        "lower the model's learning_rate in params.yaml, or check its images"
                    )
                bar.update(recipe.batch_size)
            speed = len(losses) * recipe.batch_size / (time.perf_counter() - started)
            if (epoch + 1) % recipe.evaluate_every == 0 or epoch + 1 == recipe.epochs:
                predicted = probabilities(averaged.eval(), held_out_batches, precision=recipe.precision)
                ended = Epoch(epoch, rate, float(np.mean(losses)), speed)
                judged.append((asdict(ended), torch.from_numpy(predicted)))
                say(on_epoch(ended, predicted))
            states.save(
                epoch,
                {
                    "epochs": epoch + 1,
                    "network": network.state_dict(),
                    "average": average.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "judged": judged,
                },
            )
    return averaged.eval()


def _step(
    network: Network,
    images: Tensor,
    targets: Tensor,
    criterion: Callable[[Tensor, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    rate: float,
    average: AveragedModel,
    recipe: params.Model,
) -> float:
    """Learn from one batch, images (B, 4, S, S) uint8 and targets (B, 28); return its loss."""
    device = runtime.device()
    for group in optimizer.param_groups:
        group["lr"] = rate
    network.train()
    with runtime.autocast(recipe.precision):
        logits = network(images.to(device, non_blocking=True))  # B, 28
    loss = criterion(logits, targets.to(device, non_blocking=True))
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_norm)
    optimizer.step()
    average.update_parameters(network)
    return loss.item()


def _groups(network: Network, weight_decay: float) -> list[dict[str, object]]:
    """Decay the weight matrices, not the biases and norms: shrinking those only costs fit."""
    decayed = [weight for weight in network.parameters() if weight.ndim > 1]
    others = [weight for weight in network.parameters() if weight.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
