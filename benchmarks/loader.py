"""How fast samples reach the network: four PNGs each, as is usual, against the packed array.

``python -m benchmarks.loader``. Everything but the two-worker case runs in one process on one core:

- png: four files a sample read from the disk cache, decoded and stacked, as public solutions do;
- packed: our loader;
- augmented: our loader with the default augmentation at full size;
- copy: the same bytes copied out of the memory map, the limit of any loader.

The last line is JSON: ``packed_over_png``, ``copy_over_packed``, ``augmented_over_png`` and
``two_workers_over_one`` are ratios of throughput.
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
from pipeline.sources.packed_array import IMAGES
from pipeline.sources.packing import pack
from pipeline.sources.samples import list_samples

PASSES = {"png": 1, "augmented": 2, "packed": 20, "copy": 20}
"""Passes over the samples in one measurement, so that each takes long enough for the clock."""
CORES = 2


def simulated(settings: params.Simulation, folder: Path) -> tuple[pd.DataFrame, npt.NDArray[np.uint8]]:
    """Lay out a small competition as PNG files in ``folder``, and packed: its table and images (N, S, S, 4).

    The PNGs are written anew as Kaggle's were, by zlib's default level and with every line's best filter; the
    simulator's own are written quickly and decode faster.
    """
    archive = folder / "competition.zip"
    write_archive(archive, plan(settings), settings, workers=CORES)
    with open_archive(folder) as found:
        samples, problems = list_samples(found)
        index = pack(found, samples, settings.size, folder, problems)
    images = np.load(folder / IMAGES, mmap_mode="r")
    as_kaggle = [cv2.IMWRITE_PNG_COMPRESSION, 6, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_ALL_FILTERS]
    for id_, image in zip(index["id"], images, strict=True):
        for number, channel in enumerate(CHANNELS):
            cv2.imwrite(str(folder / f"{id_}_{channel}.png"), image[..., number].copy(), as_kaggle)
    return index.assign(source="sample"), images


def decode_pngs(paths: Iterable[list[Path]], batch_size: int) -> None:
    """Read four PNGs a sample and stack them into batches of float tensors' raw material, (B, 4, S, S) uint8."""
    batch: list[torch.Tensor] = []
    for channels in paths:
        decoded = [np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)) for path in channels]
        batch.append(torch.from_numpy(np.stack(decoded)))
        if len(batch) == batch_size:
            torch.stack(batch)
            batch = []


def exhaust(loader: Iterable[object], passes: int = 1) -> Callable[[], None]:
    """Make a case of some passes over a loader."""

    def run() -> None:
        for _ in range(passes):
            for _batch in loader:
                pass

    return run


def copy(images: npt.NDArray[np.uint8], batch_size: int, passes: int) -> None:
    """Copy all images, batch by batch, into memory that is there already."""
    batch = np.empty((batch_size, *images.shape[1:]), np.uint8)
    for _ in range(passes):
        for start in range(0, len(images) - batch_size + 1, batch_size):
            np.copyto(batch, images[start : start + batch_size])


def main(samples: int, size: int, rounds: int) -> dict[str, float]:
    """Measure, print, and return the ratios.

    Args:
        samples: a multiple of the batch size, 16.
        size: pixels a side.
        rounds: of measurement.
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    settings = params.load()
    recipe = next(iter(settings.models.values()))
    change = Augmentation(recipe.augment, size)
    batch_size = 16
    with tempfile.TemporaryDirectory() as name:
        sample = settings.sample.model_copy(update={"size": size, "train": samples, "test": 1})
        index, images = simulated(sample, Path(name))
        table = index[index["split"] == "train"]
        paths = [[Path(name) / f"{id_}_{channel}.png" for channel in CHANNELS] for id_ in table["id"]]
        arrays = {"sample": images}
        plain, changed = Samples(table, arrays, size), Samples(table, arrays, size, augmentation=change)

        def augmented(workers: int) -> Iterable[object]:
            return training_batches(changed, batch_size, workers, params.Repeat(below=0, most=1))[0]

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
    table["ms a sample"] = [1e3 * float(np.median(seconds[case])) / samples / PASSES[case] for case in seconds]
    table["samples a second"] = 1e3 / table["ms a sample"]
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
    parser.add_argument("--samples", type=int, default=96)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    main(arguments.samples, arguments.size, arguments.rounds)
