"""Dataset and loader: packed images as batches of uint8 tensors, the same for any number of workers."""

import math
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from mmap import mmap
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from pipeline.core import params
from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS, target_matrix
from pipeline.data.sampler import Draw, Draws, repeat_factors, source_factors
from pipeline.sources.images import shrink_quickly

Image = npt.NDArray[np.uint8]
Batch = tuple[Tensor, Tensor]
"""Images (B, 4, S, S) uint8 in channels-last memory format, and targets (B, 28) float32."""

AHEAD = 2
"""Batches that each worker prefetches."""


class RandomChange(Protocol):
    """A random augmentation of an image."""

    @property
    def side(self) -> int:
        """Side of the augmented image in pixels."""

    def __call__(self, image: Image, seed: int, into: Image) -> Image:
        """Augment (S, S, 4) with the seed, write the result to ``into`` (side, side, 4), and return it."""


class Samples:
    """A dataset of packed images, which stay uint8 until they are on the device.

    Args:
        table: one row per sample: ``source``, ``row`` (in the array of the source) and ``target`` (empty if unknown).
        images: the packed array of each source, (N, S, S, 4) uint8.
        size: side of the images in pixels; larger packed images are shrunk by area.
        augmentation: applied to each draw, or None.
        seed: determines the augmentation, together with the draw.
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
        """Shape of an image in memory: height, width, channels."""
        side = self.size if self.augmentation is None else self.augmentation.side
        return side, side, len(CHANNELS)

    def batch(self, draws: Sequence[Draw]) -> Batch:
        """Load a batch; each image is copied only once.

        The packed array is in channels-last order, which is also the network's memory format: the batch is a view of
        shape (B, 4, S, S), and no data is transposed.
        """
        images = _empty_images((len(draws), *self.shape))
        self.fill(images.numpy(), draws)
        return images.permute(0, 3, 1, 2), pinned(self.targets[[position for _, position, _ in draws]])

    def fill(self, into: Image, draws: Sequence[Draw]) -> None:
        """Write the images of some draws to ``into`` (B, S, S, 4)."""
        for slot, (epoch, position, before) in zip(into, draws, strict=True):
            image = shrink_quickly(self.images[self.sources[position]][self.rows[position]], self.size)
            if self.augmentation is None:
                slot[:] = image
            else:
                self.augmentation(image, _seed(self.seed, epoch, position, before), slot)


class Batches:
    """Batches of samples; each iteration over them is an epoch. Workers, if any, prefetch batches.

    Workers write to memory that they share with this process from the start, and each batch is copied from there.
    ``DataLoader`` alone would allocate new shared memory for each batch, which is slower (two workers then load a third
    less) and is in ``/dev/shm``, often limited to 64 MB in containers.
    """

    def __init__(self, samples: Samples, draws: Draws, workers: int) -> None:
        self._samples, self._draws = samples, draws
        self._loader: DataLoader[tuple[int, list[int]]] | None = None
        if workers:
            # One slot more than prefetched batches: while a batch is copied, the next one is written.
            shape = (AHEAD * workers + 1, draws.batch_size, *samples.shape)
            self._slots = np.frombuffer(mmap(-1, math.prod(shape)), np.uint8).reshape(shape)
            self._loader = DataLoader(
                _SlotDataset(samples, self._slots),
                batch_sampler=_NumberedBatches(draws),
                collate_fn=_identity,
                num_workers=workers,
                prefetch_factor=AHEAD,
                # Instead of the system's default: forked workers share the arrays, and nothing is pickled.
                multiprocessing_context="fork",
                persistent_workers=True,
                # The loader draws a number from its generator; its own one leaves torch's global generator unchanged.
                generator=torch.Generator(),
                worker_init_fn=init_worker,
            )

    def __len__(self) -> int:
        return len(self._draws)

    def __iter__(self) -> Iterator[Batch]:
        if self._loader is None:
            yield from map(self._samples.batch, self._draws)
            return
        for number, positions in self._loader:
            slot = torch.from_numpy(self._slots[number % len(self._slots), : len(positions)])
            images = _empty_images(slot.shape).copy_(slot)
            yield images.permute(0, 3, 1, 2), pinned(self._samples.targets[positions])

    def close(self) -> None:
        """Stop the workers."""
        if self._loader is not None and self._loader._iterator is not None:
            self._loader._iterator._shutdown_workers()  # type: ignore[attr-defined]  # also called on deletion


def training_batches(
    samples: Samples,
    batch_size: int,
    workers: int,
    repeat: params.Repeat,
    by_source: Mapping[str, float],
    share: tuple[int, int] = (0, 1),
) -> tuple[Batches, Draws]:
    """Shuffled batches without the incomplete last one; set ``draws.epoch`` and ``draws.begin`` before each epoch.

    Args:
        samples: the training samples.
        batch_size: batch size over all processes, a multiple of their number.
        workers: loader processes; 0 loads in this process.
        repeat: oversampling of rare labels.
        by_source: times that an epoch shows a sample, by source; once where a source is not named. Multiplied with the
            factor of a rare label.
        share: rank of this process, and world size.

    Raises:
        InputError: an epoch would show no sample.
    """
    factors = repeat_factors(samples.targets.numpy() > 0, repeat.below, repeat.most)
    factors *= source_factors(samples.sources, by_source)
    draws = Draws(factors, batch_size // share[1], shuffle_seed=samples.seed, drop_last=True, share=share)
    if not draws.samples:
        raise InputError(
            f"data.draws: an epoch would show none of the {len(samples):,} samples: raise it in params.yaml"
        )
    return Batches(samples, draws, workers), draws


def ordered_batches(samples: Samples, batch_size: int, workers: int, share: tuple[int, int] = (0, 1)) -> Batches:
    """Batches of all samples in the table's order, or of every world size-th sample starting from the rank."""
    return Batches(samples, Draws(np.ones(len(samples)), batch_size, share=share), workers)


@contextmanager
def closing_workers(*batches: Batches) -> Iterator[None]:
    """Stop the workers at the end of the block, also after an exception.

    Otherwise, a traceback can keep the loader alive until the interpreter exits. It then sends SIGTERM to the workers,
    which they ignore, and waits for them forever.
    """
    try:
        yield
    finally:
        for each in batches:
            each.close()


class _SlotDataset(Dataset[tuple[int, list[int]]]):
    """The work of loader processes: write a batch to its slot, and return its number and its samples' positions."""

    def __init__(self, samples: Samples, slots: Image) -> None:
        self.samples, self.slots = samples, slots

    def __getitems__(self, numbered: tuple[int, list[Draw]]) -> tuple[int, list[int]]:
        number, draws = numbered
        self.samples.fill(self.slots[number % len(self.slots), : len(draws)], draws)
        return number, [position for _, position, _ in draws]


class _NumberedBatches(Sampler[Any]):
    """The batches of draws with their numbers in the epoch."""

    def __init__(self, draws: Draws) -> None:
        self.draws = draws

    def __iter__(self) -> Iterator[tuple[int, list[Draw]]]:
        return enumerate(self.draws)

    def __len__(self) -> int:
        return len(self.draws)


def _empty_images(shape: Sequence[int]) -> Tensor:
    """Uninitialised memory for images, pinned for asynchronous transfer if there is a GPU."""
    return torch.empty(tuple(shape), dtype=torch.uint8, pin_memory=torch.cuda.is_available())


def pinned(tensor: Tensor) -> Tensor:
    """The tensor, in pinned memory for asynchronous transfer if there is a GPU."""
    return tensor.pin_memory() if torch.cuda.is_available() else tensor


def init_worker(_worker: int) -> None:
    """Prepare a loader process: its parent handles signals, and computes first where both use the same cores."""
    # A signal to the process group must not stop workers before the training step is finished and saved.
    # Workers exit when their parent does, for any reason.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if not torch.cuda.is_available():
        # If the network computes on the same cores, its threads wait for the slowest of them, so a worker that delays
        # one delays all. Workers get enough time while these threads are idle.
        os.nice(19)


def _identity(batch: Any) -> Any:  # Any because the loader's type allows only lists of samples
    return batch


def _seed(*entropy: int) -> int:
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])
