"""One training step: learning rate, forward, loss, backward, clipping, optimizer, moving average."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import deepcopy
from typing import Any, Generic, Literal, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.core import hardware, params
from pipeline.data.loader import Batch
from pipeline.models.losses import OVER_BATCH, objective
from pipeline.models.network import AnyNetwork, Network, autocast, compute_type, share_batches
from pipeline.training.distributed import SINGLE_PROCESS, World


class Recipe(Protocol):
    """What the training loop reads of a section; see ``params.NetworkModel``."""

    @property
    def epochs(self) -> int: ...  # noqa: D102

    @property
    def evaluate_every(self) -> int: ...  # noqa: D102

    @property
    def batch_size(self) -> int: ...  # noqa: D102

    @property
    def accumulate(self) -> int: ...  # noqa: D102

    @property
    def learning_rate(self) -> float: ...  # noqa: D102

    @property
    def weight_decay(self) -> float: ...  # noqa: D102

    @property
    def warmup(self) -> float: ...  # noqa: D102

    @property
    def ema_decay(self) -> float: ...  # noqa: D102

    @property
    def keep(self) -> Literal["last", "best_loss"]: ...  # noqa: D102

    @property
    def clip_norm(self) -> float: ...  # noqa: D102

    @property
    def precision(self) -> params.Precision: ...  # noqa: D102

    @property
    def compile(self) -> bool: ...  # noqa: D102

    @property
    def seed(self) -> int: ...  # noqa: D102


class BaseLearner(ABC, Generic[AnyNetwork]):
    """A network with its optimizer, learning-rate schedule and moving average; subclasses add the loss.

    Args:
        network: trained in place.
        recipe: the model's section, or that of another training.
        steps_per_epoch: how many steps an epoch has.
        world: the processes that train together.
    """

    def __init__(
        self, network: AnyNetwork, recipe: Recipe, steps_per_epoch: int, world: World = SINGLE_PROCESS
    ) -> None:
        device = hardware.device()
        if world.size > 1:
            network = share_batches(network, world.rank, world.size)
        self.network = network.to(device).to(memory_format=torch.channels_last).train()
        self.ema = ExponentialMovingAverage(self.network, recipe.ema_decay)
        self.optimizer = torch.optim.AdamW(_parameter_groups(self.network, recipe.weight_decay), fused=True)
        self.recipe = recipe
        self.steps_per_epoch = steps_per_epoch
        self.world = world
        self._forward = self.network
        if recipe.compile:  # batch norm of several processes communicates, which divides the graph
            self._forward = cast(AnyNetwork, torch.compile(self.network, fullgraph=world.size == 1))
        self._weights = list(self.network.parameters())
        # float16 gradients would underflow without a scale; bfloat16 and float32 need none, and it does nothing.
        self._scaler = torch.amp.GradScaler(device.type, enabled=compute_type(recipe.precision) == torch.float16)

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step, counted from the start of the run."""
        steps = self.steps_per_epoch * self.recipe.epochs
        return learning_rate(step, steps=steps, peak=self.recipe.learning_rate, warmup=self.recipe.warmup)

    def train_step(self, batches: Sequence[Batch], step: int) -> Tensor:
        """Take one optimizer step on some accumulated batches; return their mean loss, on the device.

        Batch norm sees each batch alone. With several processes, it sees the whole batch, and the step is the one that
        a single process would take; if the network is compiled, it differs in what is random (dropout).

        Args:
            batches: images (B, 4, S, S) uint8 and targets each, all of the same B.
            step: counted from the start of the run; together with the seed it determines dropout and gain.
        """
        # Seeding the random numbers by the step makes a resumed run identical.
        torch.manual_seed(_seed(self.recipe.seed, step))
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step)
        loss = torch.stack([self._backward(batch, 1 / len(batches)) for batch in batches]).sum()
        self.world.average([*(weight.grad for weight in self._weights if weight.grad is not None), loss])
        self._scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self._weights, self.recipe.clip_norm, foreach=True)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.optimizer.zero_grad()
        self.ema.update(step)
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Everything that training so far has changed."""
        return {
            "network": self.network.state_dict(),
            "ema": self.ema.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self.network.load_state_dict(state["network"])
        self.ema.network.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])

    @abstractmethod
    def _backward(self, batch: Batch, share: float) -> Tensor:
        """Add the gradients of a batch's loss times ``share``; return that."""

    def _add_gradients(self, loss: Tensor) -> Tensor:
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        return loss.detach()


class Learner(BaseLearner[Network]):
    """A learner from labels of images.

    The losses that are not a mean over samples (soft F1, Lovász) see each batch alone or, with several processes, the
    whole batch, as batch norm does.

    Args:
        network: trained in place.
        prior: (28,) share of the training samples with each label.
        recipe: the model's section.
        steps_per_epoch: how many steps an epoch has.
        world: the processes that train together.
    """

    def __init__(
        self,
        network: Network,
        prior: Tensor,
        recipe: params.NetworkModel,
        steps_per_epoch: int,
        world: World = SINGLE_PROCESS,
    ) -> None:
        super().__init__(network, recipe, steps_per_epoch, world)
        self._criterion = objective(recipe, prior.to(hardware.device()))
        self._gathers = world.size > 1 and not OVER_BATCH.isdisjoint(recipe.loss)

    def _backward(self, batch: Batch, share: float) -> Tensor:
        (images, targets), device = batch, hardware.device()
        with autocast(self.recipe.precision):
            logits = self._forward(images.to(device, non_blocking=True))  # B, 28
        targets = targets.to(device, non_blocking=True)
        if not self._gathers:
            return self._add_gradients(self._criterion(logits, targets) * share)
        whole = self.world.whole_batch(torch.stack([logits.float(), targets], dim=1))  # B * size, 2, 28
        loss = self._criterion(whole[:, 0], whole[:, 1]) * share
        # Each process has the gradients of the whole loss for its own samples: wanted is their sum, not the mean.
        self._add_gradients(loss * self.world.size)
        return loss.detach()


class ExponentialMovingAverage(Generic[AnyNetwork]):
    """The exponential moving average (EMA) of a network's weights and batch-norm statistics.

    The first step copies the weights. The decay of a later step ``t`` is ``min(decay, (1 + t) / (10 + t))``, so that
    the average of a short run is not dominated by the random initial weights. Batch-norm statistics are averaged as
    the weights are; counters are copied.

    Source: Polyak & Juditsky 1992; the warm-up of the decay is TensorFlow's ``ExponentialMovingAverage``.

    Attributes:
        network: the averaged network, in evaluation mode.
    """

    def __init__(self, network: AnyNetwork, decay: float) -> None:
        self.network = deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        pairs = list(zip(self.network.state_dict().values(), network.state_dict().values(), strict=True))
        self._averaged = [(old, new) for old, new in pairs if old.is_floating_point()]
        self._copied = [(old, new) for old, new in pairs if not old.is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Include the network's weights after ``step``, counted from 0."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step)) if step else 1.0
        torch._foreach_lerp_([old for old, _ in self._averaged], [new for _, new in self._averaged], weight)
        for old, new in self._copied:
            old.copy_(new)


def learning_rate(step: int, *, steps: int, peak: float, warmup: float) -> float:
    """Linear warm-up to ``peak`` over the first ``warmup`` share of the steps, then cosine decay to 0.

    A function of the step alone, so there is no scheduler state to save.

    Source: Loshchilov & Hutter, "SGDR", ICLR 2017 (the cosine); Goyal et al. 2017 (the warm-up).

    Args:
        step: the step about to be taken, 0 to ``steps`` - 1.
        steps: how many there are.
        peak: the highest rate.
        warmup: share of the steps, 0..1.
    """
    rise = warmup * steps
    if step < rise:
        return peak * (step + 1) / (rise + 1)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(steps - rise, 1)))


def _parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Apply weight decay to weight matrices only: decaying biases and norms costs accuracy."""
    decayed = [weight for weight in network.parameters() if weight.ndim > 1]
    others = [weight for weight in network.parameters() if weight.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _seed(*entropy: int) -> int:
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])
