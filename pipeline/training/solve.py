"""What takes the place of the training loop where a head is solved for at once: the kernel's or the forest."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline import params
from pipeline.atlas.batches import Batches, Draws, Samples, ordered_batches, workers_of
from pipeline.errors import InputError
from pipeline.model.build import AnyModel, Measured
from pipeline.model.forest import ForestHead
from pipeline.model.kernel import KernelHead
from pipeline.model.losses import objective
from pipeline.progress import count, say
from pipeline.training import runtime
from pipeline.training.fit import Epoch
from pipeline.training.meter import Meter
from pipeline.training.predict import probabilities

LARGEST = 5_000
"""Equations of the kernel head, up to 20 s and 2 GB with a ResNet-34's features; more samples can train a network."""

BATCH = 256
"""Samples of which the head's solution is computed at once."""


@torch.no_grad()
def solve(
    network: AnyModel,
    training: Samples,
    held_out: Samples,
    recipe: params.Model,
    machine: params.Machine,
    on_epoch: Callable[[Epoch, npt.NDArray[np.float32]], float],
) -> None:
    """Fit the head, in place, to each training sample as ``recipe.epochs`` random augmentations of it.

    Takes the arguments of ``fit``, but for those of a run that goes on: stopped, it starts anew. ``on_epoch`` is called
    once, as after the last epoch; the model is in evaluation mode then.

    Raises:
        InputError: samples times epochs are more than can be solved for, or the network gives no finite features.
    """
    head, total = network.forest if isinstance(network, Measured) else network.kernel, recipe.epochs * len(training)
    assert head is not None  # for the type checker: the recipe asks for one
    if isinstance(head, KernelHead) and total > LARGEST:
        raise InputError(
            f"params.yaml: head kernel solves for samples x epochs = {len(training)} x {recipe.epochs}, "
            f"which may be {LARGEST} at most: lower epochs, or train the head pooled, which learns from so many samples"
        )
    runtime.keep_freed_memory()
    network.to(runtime.device()).to(memory_format=torch.channels_last).eval()
    workers = runtime.workers(machine.workers)
    # Batches of the recipe's size and not the machine's: their size changes the last digits of what is solved for.
    draws = Draws(np.ones(len(training)), recipe.batch_size)
    batches, unseen = Batches(training, draws, workers), ordered_batches(held_out, machine.predict_batch, workers)
    meter, seen = Meter(), list[Tensor]()
    with workers_of(batches, unseen), count("features", total=total, unit="images") as bar:
        for epoch in range(recipe.epochs):
            draws.epoch = epoch
            for images, _ in meter.passing(batches):
                with runtime.autocast(recipe.precision):
                    seen.append(network.describe(images.to(runtime.device(), non_blocking=True)).cpu())
                bar.update(len(images))
        features, targets = torch.cat(seen), training.targets.repeat(recipe.epochs, 1)
        if not features.isfinite().all():
            raise InputError(f"{recipe.pretrained}: the model's features are not finite: are its weights damaged?")
        head.solve(features, targets)
        if isinstance(network, Measured):
            say(f"what tells most: {network.most_telling()}")
        cost = meter.read()
        loss = _loss(head, features, targets, recipe)
        predicted = probabilities(network, unseen, precision=recipe.precision)
    on_epoch(Epoch(**vars(cost), epoch=recipe.epochs - 1, learning_rate=0.0, train_loss=loss), predicted)


def _loss(head: KernelHead | ForestHead, features: Tensor, targets: Tensor, recipe: params.Model) -> float:
    """The recipe's loss on what was solved for, for the learning curve; nothing is chosen by it."""
    parts = torch.split(features, BATCH)
    logits = torch.cat([head(part.to(runtime.device())).cpu() for part in parts])
    return float(objective(recipe, targets.mean(dim=0))(logits, targets))
