"""What an epoch costs: speed, waiting, memory."""

import resource
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from pipeline.atlas.batches import Batch


@dataclass(frozen=True)
class Cost:
    """What is measured of an epoch, and differs from one run to the next.

    Attributes:
        images_per_second: of all processes, since this one was started and while it learned.
        data_wait: share of that time in which the network waited for a batch.
        memory_gb: the most there was at any time so far: of the GPU's where there is one, else of this process.
    """

    images_per_second: float
    data_wait: float
    memory_gb: float


class Meter:
    """Measures the passing of batches, from now on, in one of ``processes`` that do the same."""

    def __init__(self, processes: int = 1) -> None:
        self._processes = processes
        self._started = time.perf_counter()
        self._waited = 0.0
        self._images = 0

    def passing(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Hand on batches, noting how long each was waited for."""
        iterator = iter(batches)
        while True:
            asked = time.perf_counter()
            batch = next(iterator, None)
            self._waited += time.perf_counter() - asked
            if batch is None:
                return
            self._images += len(batch[0]) * self._processes
            yield batch

    def read(self) -> Cost:
        """The cost up to now; the device must have done what it was given."""
        seconds = time.perf_counter() - self._started
        return Cost(self._images / seconds, self._waited / seconds, peak_memory() / 1e9)


def peak_memory() -> int:
    """Bytes: the most allocated on the GPU where there is one, else the most that this process held."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
