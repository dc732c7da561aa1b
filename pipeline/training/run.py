"""A training under way: how far it is, and what of it is saved when."""

import math
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from pipeline.errors import InputError, Stopped
from pipeline.model.network import Network
from pipeline.progress import say
from pipeline.training.learner import Learner
from pipeline.training.resume import States

LOOK_EVERY = 50
"""Steps between two looks at the losses; each look waits for the device."""

T = TypeVar("T")


@dataclass
class Run:
    """A learner's way through the epochs, to be left and taken up again after any step.

    Args:
        learner: what is trained.
        states: where it is saved.
        save_minutes: the longest time between two saves; 0 saves after every step.
        epoch: epochs that have ended, with a look at the held-out samples where one was due.
        step: steps taken in the one that has not.
        losses: of those steps, as far as they were looked at.
        judged: the figures of each epoch looked at, and its held-out probabilities (N, 28).
        best: the lowest held-out loss and the averaged network's weights at the time, where those are to be kept.
    """

    learner: Learner
    states: States
    save_minutes: float
    epoch: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)
    judged: list[tuple[dict[str, Any], Tensor]] = field(default_factory=list)
    best: tuple[float, dict[str, Tensor]] | None = None
    _unseen: list[Tensor] = field(default_factory=list)
    _saved: float = field(default_factory=time.monotonic)
    _stop: signal.Signals | None = None

    def take_up(self) -> bool:
        """Go on from the newest state, if there is one."""
        state = self.states.newest()
        if state is None:
            return False
        self.learner.load_state_dict(state.pop("learner"))
        for name, value in state.items():
            setattr(self, name, value)
        return True

    def stop(self, by: signal.Signals) -> None:
        """Ask for an end after the current step; who asks again does not wait for it.

        Of several processes the first one saves and ends, and the others with it: until then it needs them.
        """
        if not self.learner.ranks.first:
            return
        if self._stop is not None:
            raise Stopped(by)
        self._stop = by

    def stepped(self, loss: Tensor) -> None:
        """Count a step and its loss, and pause where it is time to.

        Raises:
            InputError: a loss is no longer finite; names the step.
            Stopped: a signal came.
        """
        self.step += 1
        self._unseen.append(loss)
        if len(self._unseen) == LOOK_EVERY:
            self.look()
        self.pause()

    def judge(self, figures: dict[str, Any], probabilities: Tensor, held_out_loss: float) -> None:
        """Note what an epoch led to, and its weights if they are the best so far and those are to be kept."""
        self.judged.append((figures, probabilities))
        if self.learner.recipe.keep == "best_loss" and (self.best is None or held_out_loss < self.best[0]):
            weights = self.learner.average.network.state_dict()
            self.best = held_out_loss, {name: value.clone() for name, value in weights.items()}

    def kept(self) -> Network:
        """The averaged network as it is now, or as it was best."""
        network = self.learner.average.network
        if self.best is not None:
            network.load_state_dict(self.best[1])
        return network

    def end_epoch(self) -> None:
        """Begin the next epoch, save, and stop where a signal came.

        Raises:
            Stopped: after saving.
        """
        self.epoch, self.step, self.losses = self.epoch + 1, 0, []
        self.save()
        self._end_if_asked()

    def pause(self) -> None:
        """Save where it is time to, and stop where a signal came.

        Raises:
            Stopped: after saving.
        """
        if self._stop is not None or time.monotonic() - self._saved >= 60 * self.save_minutes:
            self.save()
        self._end_if_asked()

    def pausing(self, items: Iterable[T]) -> Iterator[T]:
        """Hand on what changes nothing of the run, and stop in between where a signal came."""
        for item in items:
            yield item
            if self._stop is not None:
                self.pause()

    def look(self) -> None:
        """Fetch the losses that are still on the device.

        Raises:
            InputError: one of them is not finite; names its step.
        """
        if not self._unseen:
            return
        for loss in torch.stack(self._unseen).tolist():
            if not math.isfinite(loss):
                step = self.epoch * self.learner.steps_an_epoch + len(self.losses)
                raise InputError(
                    f"the loss is {loss} at step {step} (epoch {self.epoch}): "
                    "lower the model's learning_rate in params.yaml, or check its images"
                )
            self.losses.append(loss)
        self._unseen = []

    def save(self) -> None:
        """Save all of it, if this is the process that writes."""
        self.look()
        self._saved = time.monotonic()
        if not self.learner.ranks.first:
            return
        state = {name: getattr(self, name) for name in ("epoch", "step", "losses", "judged", "best")}
        self.states.save(self.epoch, self.step, state | {"learner": self.learner.state_dict()})

    def _end_if_asked(self) -> None:
        if self._stop is not None:
            say(f"{self.epoch} epochs and {self.step} steps are saved in {self.states.folder}")
            raise Stopped(self._stop)
