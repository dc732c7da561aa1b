"""From packed images to batches of uint8 tensors, the same ones whatever the number of workers."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from pipeline.atlas.images import planes, shrink
from pipeline.labels import target_matrix

Image = npt.NDArray[np.uint8]
Draw = tuple[int, int]
"""(epoch, position in the table): what the loader asks a `Samples` for."""


class Samples(Dataset[tuple[Tensor, Tensor]]):
    """Rows of packed arrays as (image, target) pairs.

    Args:
        table: one row a sample: ``source``, ``row`` (in that source's array) and ``target`` (empty if unknown).
        images: the packed array of each source, (N, S, S, 4) uint8.
        size: side in pixels of the images given out; larger ones are shrunk by area.
        change: ``change(image, seed)``, a random augmentation, or None.
        seed: with epoch and position, decides what ``change`` does.
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

    def __getitem__(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """The image (4, size, size) uint8 and the target (28,) float32 of one sample in one epoch."""
        epoch, position = draw
        image = shrink(self.images[self.sources[position]][self.rows[position]], self.size)
        if self.change is not None:
            image = self.change(image, _seed(self.seed, epoch, position))
        return torch.from_numpy(planes(image)), self.targets[position]


class Draws(Sampler[list[Draw]]):
    """Batches of (epoch, position): every sample once an epoch, in an order that the seed and epoch decide."""

    def __init__(self, samples: int, batch_size: int, *, shuffle_seed: int | None = None, drop_last: bool = False):
        self.samples = samples
        self.batch_size = batch_size
        self.shuffle_seed = shuffle_seed
        self.drop_last = drop_last
        self.epoch = 0

    def __iter__(self) -> Iterator[list[Draw]]:
        order = np.arange(self.samples)
        if self.shuffle_seed is not None:
            order = np.random.default_rng((self.shuffle_seed, self.epoch)).permutation(self.samples)
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            yield [(self.epoch, int(position)) for position in order[start : start + self.batch_size]]

    def __len__(self) -> int:
        whole, rest = divmod(self.samples, self.batch_size)
        # A batch of one has no batch statistics; fewer samples than a batch are still one batch.
        return whole if self.drop_last and whole else whole + (rest > 0)


def training_batches(
    samples: Samples, batch_size: int, workers: int
) -> tuple[DataLoader[tuple[Tensor, Tensor]], Draws]:
    """Shuffled batches without the incomplete last one; set ``draws.epoch`` before each pass."""
    draws = Draws(len(samples), batch_size, shuffle_seed=samples.seed, drop_last=True)
    return _loader(samples, draws, workers), draws


def ordered_batches(samples: Samples, batch_size: int, workers: int) -> DataLoader[tuple[Tensor, Tensor]]:
    """All samples, in the table's order."""
    return _loader(samples, Draws(len(samples), batch_size), workers)


def _loader(samples: Samples, draws: Draws, workers: int) -> DataLoader[tuple[Tensor, Tensor]]:
    return DataLoader(
        samples,
        batch_sampler=draws,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        # The loader draws a number from its generator; with one of its own it leaves the network's untouched.
        generator=torch.Generator(),
    )


def _seed(*entropy: int) -> int:
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])
