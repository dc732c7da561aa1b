"""From packed images to batches of uint8 tensors, the same ones whatever the number of workers."""

import math
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from mmap import mmap
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from pipeline.core import params
from pipeline.core.labels import CHANNELS, target_matrix
from pipeline.data.sampler import Draw, Draws, repeat_factors
from pipeline.sources.images import shrink_quickly

Image = npt.NDArray[np.uint8]
Batch = tuple[Tensor, Tensor]
"""Images (B, 4, S, S) uint8, in memory channel by channel within a pixel, and targets (B, 28) float32."""


AHEAD = 2
"""Batches that each worker has under way."""


class RandomChange(Protocol):
    """A random augmentation of an image."""

    @property
    def side(self) -> int:
        """Of what comes out, in pixels."""

    def __call__(self, image: Image, seed: int, into: Image) -> Image:
        """Change (S, S, 4), as the seed says, into (side, side, 4), which is returned."""


class Samples:
    """Rows of packed arrays as batches, which stay bytes until they are on the device.

    Args:
        table: one row a sample: ``source``, ``row`` (in that source's array) and ``target`` (empty if unknown).
        images: the packed array of each source, (N, S, S, 4) uint8.
        size: side in pixels of the images given out; larger ones are shrunk by area.
        augmentation: applied to each draw, or None.
        seed: with the draw, determines the augmentation.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        images: Mapping[str, Image],
        size: int,
        *,
        augmentation: RandomChange | None = None,
        seed: int = 0,
    ) -> None:
        self.sources = table["source"].to_numpy(dtype=str)
        self.rows = table["row"].to_numpy(dtype=np.int64)
        known = target_matrix(target if target else "0" for target in table["target"])
        known[table["target"].to_numpy() == ""] = False
        self.targets = torch.from_numpy(known.astype(np.float32))  # N, 28
        self.images = images
        self.size = size
        self.augmentation = augmentation
        self.seed = seed

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an image given out, as it lies in memory."""
        side = self.size if self.augmentation is None else self.augmentation.side
        return side, side, len(CHANNELS)

    def batch(self, draws: Sequence[Draw]) -> Batch:
        """The batch of some draws, copied from the packed array once.

        The array holds a pixel's channels side by side, which is how the network wants them in memory: the
        batch is only indexed in another order, (B, 4, S, S), and nothing is transposed.
        """
        images = _for_the_device((len(draws), *self.shape))
        self.fill(images.numpy(), draws)
        return images.permute(0, 3, 1, 2), self.targets[[position for _, position, _ in draws]]

    def fill(self, into: Image, draws: Sequence[Draw]) -> None:
        """Write the images of some draws into (B, S, S, 4)."""
        for slot, (epoch, position, before) in zip(into, draws, strict=True):
            image = shrink_quickly(self.images[self.sources[position]][self.rows[position]], self.size)
            if self.augmentation is None:
                slot[:] = image
            else:
                self.augmentation(image, _seed(self.seed, epoch, position, before), slot)


class Batches:
    """Batches of samples, an epoch with each pass, loaded ahead by workers where there are any.

    Workers write to memory that they share with this process from the start, from where each batch is copied. The
    loader's own way is new shared memory for each batch: two workers load half as much again without it. It also
    lies in ``/dev/shm``, of which containers often have but 64 MB.
    """

    def __init__(self, samples: Samples, draws: Draws, workers: int) -> None:
        self._samples, self._draws = samples, draws
        self._loader: DataLoader[tuple[int, list[int]]] | None = None
        if workers:
            # One more than are under way: while a batch is copied, the next one is begun.
            shape = (AHEAD * workers + 1, draws.batch_size, *samples.shape)
            self._slots = np.frombuffer(mmap(-1, math.prod(shape)), np.uint8).reshape(shape)
            self._loader = DataLoader(
                _Filled(samples, self._slots),
                batch_sampler=_Numbered(draws),
                collate_fn=_as_it_is,
                num_workers=workers,
                prefetch_factor=AHEAD,
                # Not what the system prefers: a forked worker shares the arrays, and nothing is pickled.
                multiprocessing_context="fork",
                persistent_workers=True,
                # The loader draws a number from its generator; with one of its own it leaves the network's untouched.
                generator=torch.Generator(),
                worker_init_fn=partial(_prepare, give_way=not torch.cuda.is_available()),
            )

    def __len__(self) -> int:
        return len(self._draws)

    def __iter__(self) -> Iterator[Batch]:
        if self._loader is None:
            yield from map(self._samples.batch, self._draws)
            return
        for number, positions in self._loader:
            slot = torch.from_numpy(self._slots[number % len(self._slots), : len(positions)])
            images = _for_the_device(slot.shape).copy_(slot)
            yield images.permute(0, 3, 1, 2), self._samples.targets[positions]

    def close(self) -> None:
        """End the workers."""
        if self._loader is not None and self._loader._iterator is not None:
            self._loader._iterator._shutdown_workers()  # type: ignore[attr-defined]  # what its own deletion calls


def training_batches(
    samples: Samples, batch_size: int, workers: int, repeat: params.Repeat, share: tuple[int, int] = (0, 1)
) -> tuple[Batches, Draws]:
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
    return Batches(samples, draws, workers), draws


def ordered_batches(samples: Samples, batch_size: int, workers: int, share: tuple[int, int] = (0, 1)) -> Batches:
    """All samples, or every so many-th from the process's own number on, in the table's order."""
    return Batches(samples, Draws(np.ones(len(samples)), batch_size, share=share), workers)


@contextmanager
def closing_workers(*batches: Batches) -> Iterator[None]:
    """End the workers with the block, also where an exception ends it.

    Otherwise, where a traceback holds on to the loader, the interpreter at its exit would send them SIGTERM, which they
    leave to their parent, and wait for them without end.
    """
    try:
        yield
    finally:
        for each in batches:
            each.close()


class _Filled(Dataset[tuple[int, list[int]]]):
    """What workers do: a batch goes into its slot, and which samples it holds goes back."""

    def __init__(self, samples: Samples, slots: Image) -> None:
        self.samples, self.slots = samples, slots

    def __getitems__(self, numbered: tuple[int, list[Draw]]) -> tuple[int, list[int]]:
        number, draws = numbered
        self.samples.fill(self.slots[number % len(self.slots), : len(draws)], draws)
        return number, [position for _, position, _ in draws]


class _Numbered(Sampler[Any]):
    """The batches of draws with their numbers in the epoch."""

    def __init__(self, draws: Draws) -> None:
        self.draws = draws

    def __iter__(self) -> Iterator[tuple[int, list[Draw]]]:
        return enumerate(self.draws)

    def __len__(self) -> int:
        return len(self.draws)


def _for_the_device(shape: Sequence[int]) -> Tensor:
    """New memory for images, from where a GPU can fetch them by itself."""
    return torch.empty(tuple(shape), dtype=torch.uint8, pin_memory=torch.cuda.is_available())


def _prepare(_worker: int, *, give_way: bool) -> None:
    # A signal to the whole process group must not take the batches away before the step is over and saved.
    # Workers end with their parent, however it ends.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if give_way:
        # Where the network computes on the same cores, its threads wait for the last of them: what a worker takes from
        # one, all lose. It finds time enough where they wait by themselves.
        os.nice(19)


def _as_it_is(batch: Any) -> Any:  # the loader's type, which knows lists of samples only
    return batch


def _seed(*entropy: int) -> int:
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])
