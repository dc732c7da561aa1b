"""Throughput of data loading, from four PNGs per sample and from the packed array: ``python -m benchmarks.loader``.

All cases but the last run in one process on one core:

- png: four files per sample, read from the disk cache, decoded and stacked, as in most public solutions;
- packed: this project's loader;
- augmented: this project's loader with the default augmentation at full size;
- copy: the same bytes copied from the memory map, an upper bound for any loader;
- one and two worker processes, augmented.

The last line is JSON: ``packed_over_png``, ``copy_over_packed``, ``augmented_over_png`` and ``two_workers_over_one``
are ratios of throughput.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from benchmarks.interleaved import measure, ratio, report
from pipeline.core import params
from pipeline.core.labels import CHANNELS
from pipeline.data.augment import Augmentation
from pipeline.data.loader import Samples, ordered_batches, training_batches
from pipeline.simulation.competition import plan
from pipeline.simulation.competition_archive import write_archive
from pipeline.sources.archive import open_archive
from pipeline.sources.packing import IMAGES, pack
from pipeline.sources.samples import list_samples

PASSES = {"png": 1, "augmented": 2, "packed": 20, "copy": 20}
"""Passes over the samples per measurement, so that each takes long enough to be timed."""
CORES = 2


def simulated(settings: params.Simulation, folder: Path) -> tuple[pd.DataFrame, npt.NDArray[np.uint8]]:
    """Write a small competition to ``folder`` as PNG files and as a packed array; returns table and array (N, S, S, 4).

    The PNGs are encoded again as Kaggle's were, with zlib's default level and the best filter of each line; the
    simulator uses a faster encoding, which also decodes faster.
    """
    archive = folder / "competition.zip"
    write_archive(archive, plan(settings), settings, workers=CORES)
    with open_archive(folder) as opened:
        samples, problems = list_samples(opened)
        index = pack(opened, samples, settings.size, folder, problems)
    images = np.load(folder / IMAGES, mmap_mode="r")
    as_kaggle = [cv2.IMWRITE_PNG_COMPRESSION, 6, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_ALL_FILTERS]
    for id_, image in zip(index["id"], images, strict=True):
        for number, channel in enumerate(CHANNELS):
            cv2.imwrite(str(folder / f"{id_}_{channel}.png"), image[..., number].copy(), as_kaggle)
    return index.assign(source="sample"), images


def decode_pngs(paths: Iterable[list[Path]], batch_size: int) -> None:
    """Read four PNGs per sample and stack them into batches, (B, 4, S, S) uint8."""
    batch: list[torch.Tensor] = []
    for channels in paths:
        decoded = [np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)) for path in channels]
        batch.append(torch.from_numpy(np.stack(decoded)))
        if len(batch) == batch_size:
            torch.stack(batch)
            batch = []


def exhaust(loader: Iterable[object], passes: int = 1) -> Callable[[], None]:
    """Return a function that iterates over a loader ``passes`` times."""

    def run() -> None:
        for _ in range(passes):
            for _batch in loader:
                pass

    return run


def copy(images: npt.NDArray[np.uint8], batch_size: int, passes: int) -> None:
    """Copy all images, batch by batch, to a preallocated array."""
    batch = np.empty((batch_size, *images.shape[1:]), np.uint8)
    for _ in range(passes):
        for start in range(0, len(images) - batch_size + 1, batch_size):
            np.copyto(batch, images[start : start + batch_size])


def main(samples: int, size: int, rounds: int) -> dict[str, float]:
    """Measure, print, and return the ratios.

    Args:
        samples: simulated samples, a multiple of the batch size 16.
        size: of the images, in pixels.
        rounds: measured rounds.
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    settings = params.load()
    augmentation = Augmentation(settings.networks[0].augment, size)
    batch_size = 16
    with tempfile.TemporaryDirectory() as name:
        sample = settings.sample.model_copy(update={"size": size, "train": samples, "test": 1})
        index, images = simulated(sample, Path(name))
        table = index[index["split"] == "train"]
        paths = [[Path(name) / f"{id_}_{channel}.png" for channel in CHANNELS] for id_ in table["id"]]
        arrays = {"sample": images}
        plain = Samples(table, arrays, size)
        random = Samples(table, arrays, size, augmentation=augmentation)

        def augmented(workers: int) -> Iterable[object]:
            return training_batches(random, batch_size, workers, params.Repeat(below=0, most=1), {})[0]

        seconds = measure(
            {
                "png": lambda: decode_pngs(paths, batch_size),
                "packed": exhaust(ordered_batches(plain, batch_size, 0), PASSES["packed"]),
                "augmented": exhaust(augmented(0), PASSES["augmented"]),
                "copy": lambda: copy(images[: len(table)], batch_size, PASSES["copy"]),
            },
            rounds,
        )
        workers = measure({"one": exhaust(augmented(1), 4), "two": exhaust(augmented(2), 4)}, rounds)

    def throughput(over: str, under: str) -> float:
        return ratio(seconds, under, over) * PASSES[over] / PASSES[under]

    table = pd.DataFrame({"case": list(seconds)})
    table["ms per sample"] = [1e3 * float(np.median(seconds[case])) / samples / PASSES[case] for case in seconds]
    table["samples per second"] = 1e3 / table["ms per sample"]
    figures = {
        "packed_over_png": throughput("packed", "png"),
        "copy_over_packed": throughput("copy", "packed"),
        "augmented_over_png": throughput("augmented", "png"),
        "two_workers_over_one": ratio(workers, "one", "two"),
    }
    report(table, figures)
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=96, help="simulated samples, a multiple of 16")
    parser.add_argument("--size", type=int, default=512, help="image size (pixels, default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="measured rounds (default: %(default)s)")
    arguments = parser.parse_args()
    main(arguments.samples, arguments.size, arguments.rounds)
