"""Which samples an epoch shows, and how often: rare labels more than once, if asked."""

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

Draw = tuple[int, int, int]
"""(epoch, position in the table, how many times it was drawn before): what the loader asks a `Samples` for."""


class Draws(Sampler[list[Draw]]):
    """Batches of draws, in an order that the seed and ``epoch`` decide, or in that of the table.

    ``begin`` leaves out that many batches of the epoch, without loading them.

    Args:
        factors: (N,) how often an epoch shows each sample, on average.
        batch_size: samples in a batch.
        shuffle_seed: None for the table's order.
        drop_last: leave out the incomplete last batch, unless there is no other.
        share: (which, of how many) processes this is: together their batches hold what one process's would.
    """

    def __init__(
        self,
        factors: npt.NDArray[np.float64],
        batch_size: int,
        *,
        shuffle_seed: int | None = None,
        drop_last: bool = False,
        share: tuple[int, int] = (0, 1),
    ):
        self.factors = factors
        self.samples = round(float(factors.sum()))
        self.batch_size = batch_size
        self.shuffle_seed = shuffle_seed
        self.drop_last = drop_last
        self.share = share
        self.epoch = 0
        self.begin = 0

    def __iter__(self) -> Iterator[list[Draw]]:
        order = np.arange(self.samples)
        if self.shuffle_seed is None:
            positions = order
        else:
            random = np.random.default_rng((self.shuffle_seed, self.epoch))
            positions = draw(self.factors, random.integers(2**20) / 2**20)
            order = random.permutation(self.samples)
        before = np.arange(self.samples) - np.searchsorted(positions, positions)
        order = order[self.share[0] :: self.share[1]]
        for start in range(self.begin * self.batch_size, len(self) * self.batch_size, self.batch_size):
            chosen = order[start : start + self.batch_size]
            yield [(self.epoch, int(positions[i]), int(before[i])) for i in chosen]

    def __len__(self) -> int:
        which, of = self.share
        if self.drop_last and self.samples >= self.batch_size * of:
            return self.samples // (self.batch_size * of)  # the same for every process
        # A batch of one has no batch statistics; fewer samples than a batch are still one batch.
        return math.ceil(len(range(which, self.samples, of)) / self.batch_size)


def repeat_factors(targets: npt.NDArray[np.bool_], below: float, most: float) -> npt.NDArray[np.float64]:
    """How often an epoch shows each sample, on average.

    A label of frequency ``f`` asks for ``sqrt(below / f)``, at least 1 and at most ``most``; a sample gets
    what its most demanding label asks for.

    Source: Gupta et al., "LVIS", CVPR 2019 (repeat-factor sampling; the cap is ours).

    Args:
        targets: (N, 28).
        below: frequency from which on a label is not rare.
        most: cap; 1 turns the repeats off.

    Returns:
        (N,), at least 1.
    """
    frequency = targets.mean(axis=0)
    by_label = np.sqrt(below / np.maximum(frequency, 1 / len(targets))).clip(1, most)
    factors: npt.NDArray[np.float64] = np.where(targets, by_label, 1.0).max(axis=1)
    return factors


def draw(factors: npt.NDArray[np.float64], offset: float) -> npt.NDArray[np.int64]:
    """Positions in rising order, each its factor rounded up or down; always as many as the factors add up to.

    Systematic sampling: a ruler with a mark at every whole number, moved by ``offset``, laid along the factors.
    An epoch has the same number of steps every time, and a factor of 2.5 is 2 in one epoch and 3 in the other.

    Args:
        factors: (N,), at least 1.
        offset: from [0, 1), a multiple of 2 ** -20, so that adding it to a position rounds nothing.

    Returns:
        (M,) with M the sum of the factors, rounded.
    """
    ends = factors.cumsum()
    count = round(float(ends[-1]))
    drawn: npt.NDArray[np.int64] = np.searchsorted(ends * (count / ends[-1]), np.arange(count) + offset, side="right")
    return drawn.clip(max=len(factors) - 1)
