"""One step of learning: forward, loss, backward, optimizer, moving average."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from pipeline import params
from pipeline.atlas.batches import Batch
from pipeline.model.losses import objective
from pipeline.model.network import Network, with_shared_statistics
from pipeline.training import runtime
from pipeline.training.average import MovingAverage
from pipeline.training.ranks import ALONE, Ranks
from pipeline.training.schedule import learning_rate


class Learner:
    """A network that learns, with its optimizer and its moving average.

    Args:
        network: trained in place.
        prior: (28,), share of the training samples with each label.
        recipe: the model's section.
        steps_an_epoch: how many steps an epoch has.
        ranks: the processes that learn together.
    """

    def __init__(
        self, network: Network, prior: Tensor, recipe: params.Model, steps_an_epoch: int, ranks: Ranks = ALONE
    ) -> None:
        if ranks.size > 1 and torch.cuda.is_available():
            network = with_shared_statistics(network)  # torch has none for the CPU: there each process keeps its own
        self.network = network.to(runtime.device()).to(memory_format=torch.channels_last).train()
        self.average = MovingAverage(self.network, recipe.ema_decay)
        self.optimizer = torch.optim.AdamW(_groups(self.network, recipe.weight_decay), fused=True)
        self.recipe = recipe
        self.steps_an_epoch = steps_an_epoch
        self.ranks = ranks
        self._forward = ranks.wrap(cast(nn.Module, torch.compile(self.network)) if recipe.compile else self.network)
        self._weights = list(self.network.parameters())
        self._criterion = objective(recipe, prior)

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        steps = self.steps_an_epoch * self.recipe.epochs
        return learning_rate(step, steps=steps, peak=self.recipe.learning_rate, warmup=self.recipe.warmup)

    def learn(self, batches: Sequence[Batch], step: int) -> Tensor:
        """Learn from some batches as from one; return their mean loss, on the device.

        Batch norm sees each batch alone, and so do the losses that are no mean over samples (soft F1, Lovász).

        Args:
            batches: images (B, 4, S, S) uint8 and targets (B, 28) each, with as many samples one as the other.
            step: counted from the start of the run; with the seed, decides the dropout.
        """
        # Dropout is the only randomness in here; it must not depend on what ran before this step.
        torch.manual_seed(_seed(self.recipe.seed, step, self.ranks.rank))
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(step)
        losses = torch.stack([self._backward(batch, 1 / len(batches)) for batch in batches])
        nn.utils.clip_grad_norm_(self._weights, self.recipe.clip_norm, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update(step)
        return self.ranks.mean(losses.sum())

    def state_dict(self) -> dict[str, Any]:
        """All that the steps so far have left behind."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` gave."""
        self.network.load_state_dict(state["network"])
        self.average.network.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _backward(self, batch: Batch, share: float) -> Tensor:
        (images, targets), device = batch, runtime.device()
        with runtime.autocast(self.recipe.precision):
            logits = self._forward(images.to(device, non_blocking=True))  # B, 28
        loss = self._criterion(logits, targets.to(device, non_blocking=True)) * share
        self.ranks.backward(loss)
        return loss.detach()


def _groups(network: Network, weight_decay: float) -> list[dict[str, Any]]:
    """Decay the weight matrices, not the biases and norms: shrinking those only costs fit."""
    decayed = [weight for weight in network.parameters() if weight.ndim > 1]
    others = [weight for weight in network.parameters() if weight.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _seed(*entropy: int) -> int:
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])
