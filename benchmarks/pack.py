"""What packing costs over bare decoding: ``python -m benchmarks.pack [--source FOLDER]``.

Both read the same members of the same archive in as many threads as there are cores, in turn. Decoding is what every
public solution does per sample: four PNGs through OpenCV. Packing checks, measures and hashes them as well and writes
one array. Without a folder the samples are simulated ones, encoded as Kaggle's were and each there several times.

The last line is JSON: ``pack_over_decode`` is a ratio of wall times, ``peak_memory_mb`` is of a process that packs.
"""

import argparse
import multiprocessing
import os
import tempfile
import zipfile
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from benchmarks.interleaved import measure, ratio, report
from pipeline.core import params
from pipeline.core.labels import CHANNELS
from pipeline.simulation.competition import plan
from pipeline.simulation.render import render
from pipeline.sources.archive import Archive, open_archive
from pipeline.sources.packing import in_threads, pack
from pipeline.sources.samples import list_samples

AS_KAGGLE = [cv2.IMWRITE_PNG_COMPRESSION, 6, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_ALL_FILTERS]
"""zlib's default level and every line's best filter; the simulator's own PNGs are written quickly and decode faster."""


def simulated(settings: params.Simulation, copies: int, folder: Path) -> Path:
    """Write a competition of training samples, each drawn once and there ``copies`` times, and return its folder."""
    ids = []
    with zipfile.ZipFile(folder / "competition.zip", "w") as archive:
        for entry in (entry for entry in plan(settings) if entry.split == "train"):
            image = render(entry, settings)
            for copy in range(copies):
                ids.append(f"{entry.id}-{copy}")
                for number, channel in enumerate(CHANNELS):
                    png = cv2.imencode(".png", image[..., number].copy(), AS_KAGGLE)[1].tobytes()
                    archive.writestr(f"train/{ids[-1]}_{channel}.png", png)
        archive.writestr("train.csv", pd.DataFrame({"Id": ids, "Target": "0"}).to_csv(index=False))
    return folder


def decode_all(archive: Archive, samples: pd.DataFrame) -> None:
    """Read and decode the four PNGs of each sample, spread over the cores, and keep nothing."""

    def decode(id_: str) -> None:
        for channel in CHANNELS:
            data = archive.members[f"{id_}_{channel}.png"].read()
            cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)

    deque(in_threads(decode, samples["id"], os.cpu_count() or 1), maxlen=0)


def pack_all(archive: Archive, samples: pd.DataFrame, size: int) -> None:
    """Pack the samples into a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        pack(archive, samples, size, Path(folder))


def peak_memory_mb(source: Path, size: int) -> float:
    """Pack a source in this process, which should have done nothing else, and return the most memory it held."""
    with open_archive(source) as archive:
        pack_all(archive, list_samples(archive)[0], size)
    # Not getrusage: what it tells includes the process that started this one.
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def run(source: Path, size: int, rounds: int) -> None:
    """Measure and print."""
    with open_archive(source) as archive:
        samples, _ = list_samples(archive)
        seconds = measure(
            {
                "decode": lambda: decode_all(archive, samples),
                "pack": lambda: pack_all(archive, samples, size),
            },
            rounds,
        )
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        peak = pool.submit(peak_memory_mb, source, size).result()
    rates = [{"case": case, "samples a second": len(samples) / np.median(taken)} for case, taken in seconds.items()]
    figures = {
        "pack_over_decode": round(ratio(seconds, "pack", "decode"), 3),
        "peak_memory_mb": round(peak),
        "samples": len(samples),
        "rounds": rounds,
        "cores": os.cpu_count(),
    }
    report(pd.DataFrame(rates), figures)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, help="folder of a competition; simulated ones without it")
    parser.add_argument("--size", type=int, default=512, help="pixels of the images")
    parser.add_argument("--samples", type=int, default=16, help="drawn, where they are simulated")
    parser.add_argument("--copies", type=int, default=16, help="of each drawn one")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    if given.source:
        run(given.source, given.size, given.rounds)
        return
    settings = params.load().sample.model_copy(update={"size": given.size, "train": given.samples, "test": 1})
    with tempfile.TemporaryDirectory() as folder:
        run(simulated(settings, given.copies, Path(folder)), given.size, given.rounds)


if __name__ == "__main__":
    main()
