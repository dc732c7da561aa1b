"""Sampling of batches, shuffled or in order, with optional oversampling of rare labels."""

import math
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

Draw = tuple[int, int, int]
"""A sample to load: (epoch, position in the table, how many times it was drawn before in this epoch)."""


class Draws(Sampler[list[Draw]]):
    """Batches of draws, shuffled by the seed and ``epoch``, or in the order of the table.

    ``begin`` is the number of batches to skip at the start of the epoch; they are not loaded.

    Args:
        factors: (N,) how often an epoch shows each sample, on average; above 0.
        batch_size: number of samples in a batch.
        shuffle_seed: None for the table's order.
        drop_last: drop the incomplete last batch unless it is the only one; batch norm needs more than one sample.
        share: rank of this process, and world size. Together, the processes draw the same samples as a single one.
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
            offset = random.integers(2**20) / 2**20
            if self.factors.min() < 1:  # in the table's order, a sample would always be drawn with the same others
                shuffled = random.permutation(len(self.factors))
                positions = np.sort(shuffled[draw(self.factors[shuffled], offset)])
            else:
                positions = draw(self.factors, offset)
            order = random.permutation(self.samples)
        before = np.arange(self.samples) - np.searchsorted(positions, positions)
        order = order[self.share[0] :: self.share[1]]
        for start in range(self.begin * self.batch_size, len(self) * self.batch_size, self.batch_size):
            chosen = order[start : start + self.batch_size]
            yield [(self.epoch, int(positions[i]), int(before[i])) for i in chosen]

    def __len__(self) -> int:
        rank, world_size = self.share
        if self.drop_last and self.samples >= self.batch_size * world_size:
            return self.samples // (self.batch_size * world_size)  # the same in every process
        return math.ceil(len(range(rank, self.samples, world_size)) / self.batch_size)


def repeat_factors(targets: npt.NDArray[np.bool_], below: float, most: float) -> npt.NDArray[np.float64]:
    """How often an epoch shows each sample, on average.

    The factor of a label with frequency ``f`` is ``sqrt(below / f)``, clipped to 1 .. ``most``. The factor of a sample
    is the largest factor of its labels.

    Source: Gupta et al., "LVIS", CVPR 2019 (repeat-factor sampling, there without an upper limit).

    Args:
        targets: (N, 28) bool.
        below: labels with a lower frequency are rare.
        most: upper limit of the factors; 1 turns oversampling off.

    Returns:
        (N,), at least 1.
    """
    frequency = targets.mean(axis=0)
    by_label = np.sqrt(below / np.maximum(frequency, 1 / len(targets))).clip(1, most)
    factors: npt.NDArray[np.float64] = np.where(targets, by_label, 1.0).max(axis=1)
    return factors


def source_factors(sources: npt.NDArray[np.str_], draws: Mapping[str, float]) -> npt.NDArray[np.float64]:
    """How often an epoch shows each sample, on average, by its source alone.

    Args:
        sources: (N,) the source of each sample.
        draws: times that an epoch shows a sample, by source; those of other sources are shown once.

    Returns:
        (N,).
    """
    return np.array([draws.get(source, 1.0) for source in sources.tolist()], dtype=np.float64)


def draw(factors: npt.NDArray[np.float64], offset: float) -> npt.NDArray[np.int64]:
    """Draw positions by systematic sampling: each as often as its factor, rounded up or down.

    The cumulative sum of the factors is sampled at ``offset``, ``offset + 1``, and so on. The number of draws is
    therefore the same in every epoch, and a factor of 2.5 gives 2 draws in some epochs and 3 in others. Of samples with
    a factor of 0.25, each fourth one in their order is drawn.

    Args:
        factors: (N,), above 0.
        offset: in [0, 1), a multiple of 2 ** -20, so that adding integers to it is exact.

    Returns:
        (M,) positions in ascending order, where M is the rounded sum of the factors.
    """
    ends = factors.cumsum()
    count = round(float(ends[-1]))
    drawn: npt.NDArray[np.int64] = np.searchsorted(ends * (count / ends[-1]), np.arange(count) + offset, side="right")
    return drawn.clip(max=len(factors) - 1)
