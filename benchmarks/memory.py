"""Whether loading leaks: the memory of the process and its workers over an epoch of the real number of samples.

``python -m benchmarks.memory``: 30,000 samples of a few pixels with the default augmentation, with no worker and with
two. The last line is JSON: ``growth_mb_0_workers`` and ``growth_mb_2_workers``, from the first tenth of the epoch, when
everything is set up, to its end.
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


def held() -> float:
    """Memory in MB that this process and each of its workers hold alone: what a leak would add to."""
    processes = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
    maps = [Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines() for process in processes]
    return sum(int(line.split()[1]) for lines in maps for line in lines if line.startswith("Private_")) / 1024


def memory_over_an_epoch(samples: int, workers: int) -> Iterator[float]:
    """The memory after each tenth of an epoch."""
    recipe = next(iter(params.load().models.values()))
    table = pd.DataFrame({"source": "noise", "row": np.arange(samples), "target": "0"})
    noise = np.random.default_rng(0).integers(0, 256, (samples, SIDE, SIDE, 4), dtype=np.uint8)
    changed = Samples(table, {"noise": noise}, SIDE, augmentation=Augmentation(recipe.augment, SIDE))
    loader, _ = training_batches(changed, BATCH, workers, recipe.repeat)
    for number, _ in enumerate(loader, start=1):
        if number % (len(loader) // PARTS) == 0:
            yield held()


def main(samples: int) -> dict[str, float]:
    """Measure, print, and return the growth."""
    grown = {f"{workers} workers": list(memory_over_an_epoch(samples, workers)) for workers in (0, 2)}
    table = pd.DataFrame(grown).rename_axis("tenth of the epoch").reset_index()
    figures = {f"growth_mb_{name.replace(' ', '_')}": memory[-1] - memory[0] for name, memory in grown.items()}
    report(table, figures)
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=30_000)
    main(parser.parse_args().samples)
