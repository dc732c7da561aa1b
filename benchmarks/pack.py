"""Cost of packing relative to decoding alone: ``python -m benchmarks.pack [--source FOLDER]``.

Both read the same files of the same archive with one thread per core, in interleaved rounds. Decoding is what public
solutions do: four PNGs per sample with OpenCV. Packing also checks, measures and hashes the images and writes them to
one array. Without ``--source``, simulated samples are used, encoded as Kaggle's are and repeated several times.

The last line is JSON: ``pack_over_decode`` is a ratio of wall times, ``peak_memory_mb`` is the peak memory of a process
that packs.
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
from pipeline.sources.packing import pack
from pipeline.sources.samples import list_samples
from pipeline.sources.threads import in_threads

AS_KAGGLE = [cv2.IMWRITE_PNG_COMPRESSION, 6, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_ALL_FILTERS]
"""zlib's default level and the best filter of each line; the simulator's faster encoding also decodes faster."""


def simulated(settings: params.Simulation, copies: int, folder: Path) -> Path:
    """Write a competition of simulated training samples, each ``copies`` times, and return its folder."""
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
    """Read and decode the four PNGs of each sample, one thread per core, and discard the pixels."""

    def decode(id_: str) -> None:
        for channel in CHANNELS:
            data = archive.members[f"{id_}_{channel}.png"].read()
            cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)

    deque(in_threads(decode, samples["id"], os.cpu_count() or 1), maxlen=0)


def pack_all(archive: Archive, samples: pd.DataFrame, size: int) -> None:
    """Pack the samples into a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        pack(archive, samples, size, Path(folder))


def peak_memory_mb(source: Path, size: int) -> float:
    """Pack a source in this process, which must be new, and return its peak memory."""
    with open_archive(source) as archive:
        pack_all(archive, list_samples(archive)[0], size)
    # Not getrusage, whose figure includes the parent process.
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def run(source: Path, size: int, rounds: int) -> None:
    """Measure and print the figures."""
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
    rates = [{"case": case, "samples per second": len(samples) / np.median(taken)} for case, taken in seconds.items()]
    figures = {
        "pack_over_decode": round(ratio(seconds, "pack", "decode"), 3),
        "peak_memory_mb": round(peak),
        "samples": len(samples),
        "rounds": rounds,
        "cores": os.cpu_count(),
    }
    report(pd.DataFrame(rates), figures)


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, help="folder of a competition (default: simulated samples)")
    parser.add_argument("--size", type=int, default=512, help="image size (pixels, default: %(default)s)")
    parser.add_argument("--samples", type=int, default=16, help="simulated samples (default: %(default)s)")
    parser.add_argument("--copies", type=int, default=16, help="copies of each (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="measured rounds (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.source:
        run(arguments.source, arguments.size, arguments.rounds)
        return
    settings = params.load().sample.model_copy(update={"size": arguments.size, "train": arguments.samples, "test": 1})
    with tempfile.TemporaryDirectory() as folder:
        run(simulated(settings, arguments.copies, Path(folder)), arguments.size, arguments.rounds)


if __name__ == "__main__":
    main()
