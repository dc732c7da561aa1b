"""Random windows of simulated fields with the positions of their labels, as batches that depend on the step alone."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.core import params
from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS, LABELS
from pipeline.data.augment import Appearance
from pipeline.data.loader import init_worker
from pipeline.sources.images import turn

Image = npt.NDArray[np.uint8]
Bits = npt.NDArray[np.uint32]
WindowBatch = tuple[Tensor, Tensor]
"""Images (B, 4, S, S) uint8, and labels by position (B, S / cell, S / cell) int64, bit l for label l."""

AHEAD = 3
"""Batches that each worker prefetches."""


class Windows(Dataset[WindowBatch]):
    """Batches of windows, numbered by the training step. Every pass shows one window of each field.

    A window is cut at a random place, turned by quarters and mirrored; its appearance is varied, but it is neither
    rotated by other angles nor rescaled: the fields themselves vary in that.

    Args:
        images: (N, S, S, 4) uint8 each: shards of the fields.
        bits: (N, S / cell, S / cell) uint32 each: bit l tells whether a position shows label l.
        recipe: the model's section; ``augment.crop`` gives the side of the windows.

    Raises:
        InputError: the windows' side is not a multiple of 32, or ``augment.warp`` is not 0.
    """

    def __init__(self, images: Sequence[Image], bits: Sequence[Bits], recipe: params.NetworkModel) -> None:
        self.images, self.bits, self.recipe = images, bits, recipe
        self.places = [(shard, row) for shard, each in enumerate(images) for row in range(len(each))]
        self.cell = images[0].shape[1] // bits[0].shape[1]
        self.side = round(recipe.augment.crop * images[0].shape[1])
        if self.side % 32 or recipe.augment.warp:
            raise InputError(
                f"augment: windows of {self.side} px (crop x size) must be a multiple of 32 px, and warp must be 0"
            )
        self.appearance = Appearance(recipe.augment, self.side)

    def __len__(self) -> int:
        """Number of steps."""
        return self.recipe.epochs * self.steps_per_epoch

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which nearly every field is shown once; the incomplete last batch is left out."""
        return len(self.places) // self.recipe.batch_size

    def __getitem__(self, step: int) -> WindowBatch:
        """The batch of a step."""
        epoch, number = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng((self.recipe.seed, epoch)).permutation(len(self.places))
        size = self.recipe.batch_size
        chosen = order[number * size : (number + 1) * size]
        images = np.empty((size, self.side, self.side, len(CHANNELS)), np.uint8)
        bits = np.empty((size, self.side // self.cell, self.side // self.cell), np.uint32)
        for slot, place in enumerate(chosen):
            rng = np.random.default_rng((self.recipe.seed, step, slot))
            image, bits[slot] = self._window(int(place), rng)
            self.appearance(image, int(rng.integers(2**32)), images[slot])
        return torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(bits.astype(np.int64))

    def _window(self, place: int, rng: np.random.Generator) -> tuple[Image, Bits]:
        shard, row = self.places[place]
        positions = self.side // self.cell
        top, left = rng.integers(0, self.bits[shard].shape[1] - positions + 1, 2)
        bits = self.bits[shard][row, top : top + positions, left : left + positions]
        top, left = top * self.cell, left * self.cell
        image = self.images[shard][row, top : top + self.side, left : left + self.side]
        quarters, mirror = int(rng.integers(4)), bool(rng.integers(2))
        bytes_ = np.ascontiguousarray(bits).view(np.uint8).reshape(positions, positions, 4)
        turned = np.ascontiguousarray(turn(bytes_, quarters, mirror=mirror))
        return turn(image, quarters, mirror=mirror), turned.view(np.uint32)[..., 0]


@contextmanager
def open_batches(windows: Windows, first_step: int, workers: int) -> Iterator[Iterator[WindowBatch]]:
    """The batches of all steps from ``first_step`` on, loaded by ``workers`` processes (0: by this one).

    The processes are stopped at the end of the block, also after an exception (see ``loader.closing_workers``).
    """
    loader = DataLoader(
        windows,
        batch_size=None,
        sampler=range(first_step, len(windows)),
        num_workers=workers,
        prefetch_factor=AHEAD if workers else None,
        multiprocessing_context="fork" if workers else None,
        generator=torch.Generator(),
        worker_init_fn=init_worker,
        pin_memory=torch.cuda.is_available(),
    )
    batches = iter(loader)
    try:
        yield batches
    finally:
        if workers:
            batches._shutdown_workers()  # type: ignore[attr-defined]  # also called on deletion


def labels_of(bits: Tensor) -> Tensor:
    """Labels by position as (B, 28, h, w) float32, from their bits (B, h, w)."""
    return ((bits[:, None] >> torch.arange(len(LABELS), device=bits.device)[:, None, None]) & 1).float()
