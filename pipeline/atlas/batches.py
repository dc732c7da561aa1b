"""From packed images to batches of uint8 tensors, the same ones whatever the number of workers."""

import math
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from pipeline import params
from pipeline.atlas.images import shrink_quickly
from pipeline.atlas.sampling import draw, repeat_factors
from pipeline.labels import target_matrix

Image = npt.NDArray[np.uint8]
Batch = tuple[Tensor, Tensor]
"""Images (B, 4, S, S) uint8, in memory channel by channel within a pixel, and targets (B, 28) float32."""
Draw = tuple[int, int, int]
"""(epoch, position in the table, how many times it was drawn before): what the loader asks a `Samples` for."""


class Samples(Dataset[Batch]):
    """Rows of packed arrays as batches, which stay bytes until they are on the device.

    Args:
        table: one row a sample: ``source``, ``row`` (in that source's array) and ``target`` (empty if unknown).
        images: the packed array of each source, (N, S, S, 4) uint8.
        size: side in pixels of the images given out; larger ones are shrunk by area.
        change: ``change(image, seed)``, a random augmentation, or None.
        seed: with the draw, decides what ``change`` does.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        images: Mapping[str, Image],
        size: int,
        *,
        change: Callable[[Image, int], Image] | None = None,
        seed: int = 0,
    ) -> None:
        self.sources = table["source"].to_numpy(dtype=str)
        self.rows = table["row"].to_numpy(dtype=np.int64)
        known = target_matrix(target if target else "0" for target in table["target"])
        known[table["target"].to_numpy() == ""] = False
        self.targets = torch.from_numpy(known.astype(np.float32))  # N, 28
        self.images = images
        self.size = size
        self.change = change
        self.seed = seed

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, draws: Sequence[Draw]) -> Batch:
        """The batch of some draws, copied from the packed array once.

        The array holds a pixel's channels side by side, which is how the network wants them in memory: the
        batch is only indexed in another order, (B, 4, S, S), and nothing is transposed.
        """
        first = self._image(draws[0])
        images = np.empty((len(draws), *first.shape), np.uint8)
        images[0] = first
        for i in range(1, len(draws)):
            images[i] = self._image(draws[i])
        return torch.from_numpy(images).permute(0, 3, 1, 2), self.targets[[position for _, position, _ in draws]]

    __getitems__ = batch  # what the loader calls

    def _image(self, draw: Draw) -> Image:
        position = draw[1]
        image = shrink_quickly(self.images[self.sources[position]][self.rows[position]], self.size)
        return image if self.change is None else self.change(image, _seed(self.seed, *draw))


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


def training_batches(
    samples: Samples, batch_size: int, workers: int, repeat: params.Repeat, share: tuple[int, int] = (0, 1)
) -> tuple[DataLoader[Batch], Draws]:
    """Shuffled batches without the incomplete last one; set ``draws.epoch`` and ``draws.begin`` before each pass.

    Args:
        samples: to learn from.
        batch_size: of all processes together, a multiple of their number.
        workers: loader processes; 0 loads in this one.
        repeat: how often rare labels' samples come up.
        share: (which, of how many) processes this is.
    """
    factors = repeat_factors(samples.targets.numpy() > 0, repeat.below, repeat.most)
    draws = Draws(factors, batch_size // share[1], shuffle_seed=samples.seed, drop_last=True, share=share)
    return _loader(samples, draws, workers), draws


def ordered_batches(
    samples: Samples, batch_size: int, workers: int, share: tuple[int, int] = (0, 1)
) -> DataLoader[Batch]:
    """All samples, or every so many-th from the process's own number on, in the table's order."""
    return _loader(samples, Draws(np.ones(len(samples)), batch_size, share=share), workers)


@contextmanager
def workers_of(*loaders: DataLoader[Batch]) -> Iterator[None]:
    """End the loaders' workers with the block, also where an exception ends it.

    Otherwise, where a traceback holds on to the loader, the interpreter at its exit would send them SIGTERM, which they
    leave to their parent, and wait for them without end.
    """
    try:
        yield
    finally:
        for loader in loaders:
            if loader.num_workers and loader._iterator is not None:
                loader._iterator._shutdown_workers()  # type: ignore[attr-defined]  # what its own deletion calls


def _loader(samples: Samples, draws: Draws, workers: int) -> DataLoader[Batch]:
    return DataLoader(
        samples,
        batch_sampler=draws,
        collate_fn=_as_it_is,
        num_workers=workers,
        # Not what the system prefers: a forked worker shares the packed array, and nothing is pickled.
        multiprocessing_context="fork" if workers else None,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        # The loader draws a number from its generator; with one of its own it leaves the network's untouched.
        generator=torch.Generator(),
        worker_init_fn=_leave_stopping_to_the_parent,
    )


def _leave_stopping_to_the_parent(_worker: int) -> None:
    # A signal to the whole process group must not take the batches away before the step is over and saved.
    # Workers end with their parent, however it ends.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _as_it_is(batch: Any) -> Any:  # the loader's type, which knows lists of samples only
    return batch


def _seed(*entropy: int) -> int:
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])
