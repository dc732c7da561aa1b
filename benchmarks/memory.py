"""Memory leaks of the data loader over an epoch of the competition's size: ``python -m benchmarks.memory``.

Loads 30,000 small samples with the default augmentation, without workers and with two. The last line is JSON:
``growth_mb_0_workers`` and ``growth_mb_2_workers`` are the growth of private memory from the first tenth of the epoch,
when everything is set up, to its end.
"""

import argparse
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.interleaved import report
from pipeline.core import params
from pipeline.data.augment import Augmentation
from pipeline.data.loader import Samples, training_batches

SIDE = 32
BATCH = 50
PARTS = 10


def private_memory_mb() -> float:
    """Private memory of this process and its workers (MB), without pages they share."""
    processes = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
    maps = [Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines() for process in processes]
    return sum(int(line.split()[1]) for lines in maps for line in lines if line.startswith("Private_")) / 1024


def memory_over_an_epoch(samples: int, workers: int) -> Iterator[float]:
    """Yield the private memory after each tenth of an epoch (MB)."""
    recipe = params.load().networks[0]
    table = pd.DataFrame({"source": "noise", "row": np.arange(samples), "target": "0"})
    noise = np.random.default_rng(0).integers(0, 256, (samples, SIDE, SIDE, 4), dtype=np.uint8)
    random = Samples(table, {"noise": noise}, SIDE, augmentation=Augmentation(recipe.augment, SIDE))
    loader, _ = training_batches(random, BATCH, workers, recipe.repeat, {})
    for number, _ in enumerate(loader, start=1):
        if number % (len(loader) // PARTS) == 0:
            yield private_memory_mb()


def main(samples: int) -> dict[str, float]:
    """Measure, print, and return the growth."""
    measured = {f"{workers} workers": list(memory_over_an_epoch(samples, workers)) for workers in (0, 2)}
    table = pd.DataFrame(measured).rename_axis("tenth of the epoch").reset_index()
    figures = {f"growth_mb_{name.replace(' ', '_')}": memory[-1] - memory[0] for name, memory in measured.items()}
    report(table, figures)
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=30_000, help="samples of the epoch (default: %(default)s)")
    main(parser.parse_args().samples)
