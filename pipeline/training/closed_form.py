"""Fitting a head in closed form, in place of the training loop: kernel ridge regression or a random forest."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.core import hardware, params, processors
from pipeline.core.errors import InputError
from pipeline.core.progress import count, say
from pipeline.data.loader import Batches, Samples, closing_workers, ordered_batches
from pipeline.data.sampler import Draws
from pipeline.inference.probabilities import probabilities
from pipeline.models.checkpoint import AnyModel
from pipeline.models.classical import FeatureForest, ForestHead
from pipeline.models.heads import KernelHead
from pipeline.models.losses import binary_cross_entropy
from pipeline.models.network import Network, autocast
from pipeline.training.history import Epoch, ThroughputMeter
from pipeline.training.loop import OnEpoch

LARGEST = 5_000
"""Largest system of equations of the kernel head: 20 s and 2 GB with a ResNet-34's features."""

FEATURE_BATCH = 8
"""Images whose features are computed at once. A constant, because it changes the last digits of the features."""

LOSS_BATCH = 256
"""Samples whose logits are computed at once for the training loss."""


@torch.no_grad()
def fit_closed_form(
    model: AnyModel,
    training: Samples,
    held_out: Samples,
    recipe: params.FrozenModel | params.ClassicalModel,
    machine: params.Machine,
    on_epoch: OnEpoch,
) -> None:
    """Fit the model's head, in place. Runs in one process, and starts over after an interruption.

    Args:
        model: a frozen network with a kernel head, or hand-crafted features with a forest; left in evaluation mode.
        training: the samples to fit, each ``recipe.copies`` times with different augmentation, or once as it is.
        held_out: predicted once, never learned from.
        recipe: the model's section.
        machine: loader processes and the batch size of predictions.
        on_epoch: called once, as after the last epoch of ``loop.fit``.

    Raises:
        InputError: there are more samples than can be fitted, or the network's features are not finite.
    """
    head = model.forest if isinstance(model, FeatureForest) else model.kernel
    assert head is not None  # for the type checker: a frozen network has a kernel head
    copies = recipe.copies if isinstance(recipe, params.FrozenModel) else 1
    total = copies * len(training)
    if isinstance(head, KernelHead) and total > LARGEST:
        raise InputError(
            f"params.yaml: a frozen model fits samples x copies = {len(training)} x {copies}, at most {LARGEST}: "
            "lower copies, or train a model of kind network, which has no such limit"
        )
    hardware.prepare()
    model.to(hardware.device()).to(memory_format=torch.channels_last).eval()
    workers = processors.loaders(machine.workers)
    draws = Draws(np.ones(len(training)), FEATURE_BATCH)
    batches, unseen = Batches(training, draws, workers), ordered_batches(held_out, machine.predict_batch, workers)
    meter, seen = ThroughputMeter(), list[Tensor]()
    with closing_workers(batches, unseen), count("features", total=total, unit="images") as bar:
        if isinstance(model, Network):
            model.normalise.train()  # for its random gain
            torch.manual_seed(recipe.seed)
        for copy in range(copies):
            draws.epoch = copy
            for images, _ in meter.measured(batches):
                with autocast(recipe.precision):
                    seen.append(model.head_features(images.to(hardware.device(), non_blocking=True)).cpu())
                bar.update(len(images))
        model.eval()
        features, targets = torch.cat(seen), training.targets.repeat(copies, 1)
        if not features.isfinite().all():
            raise InputError("the model's features are not finite: are its pretrained weights damaged?")
        head.fit(features, targets)
        if isinstance(model, FeatureForest):
            say(f"most important features: {model.most_important()}")
        cost = meter.read()
        predicted: npt.NDArray[np.float32] = probabilities(model, unseen, precision=recipe.precision)
    loss = _training_loss(head, features, targets)
    on_epoch(Epoch(**vars(cost), epoch=0, learning_rate=0.0, train_loss=loss), predicted)


def _training_loss(head: KernelHead | ForestHead, features: Tensor, targets: Tensor) -> float:
    """The cross-entropy on the fitted samples, for the learning curve; nothing is chosen by it."""
    parts = torch.split(features, LOSS_BATCH)
    logits = torch.cat([head(part.to(hardware.device())).cpu() for part in parts])
    return float(binary_cross_entropy(logits, targets))
