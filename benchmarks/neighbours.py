"""Time of the exact nearest neighbours of many queries: ``python -m benchmarks.neighbours``.

Random unit vectors: the time of an exact search does not depend on what they are. Ours (``inference/neighbours.py``: a
product of matrices and the largest values of each row) is compared with scikit-learn's brute force and, where it is
installed, with faiss's exact index, in interleaved rounds. All have to find the same neighbours. The last line is JSON:
``seconds`` is the median of our rounds, and ``processor_seconds`` the time of all our threads, which other programs
hardly change.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from sklearn.neighbors import NearestNeighbors

from benchmarks.interleaved import measure, report
from pipeline.core.entry import run_main
from pipeline.core.errors import InputError
from pipeline.inference.embedding import Vectors
from pipeline.inference.neighbours import Gallery

AGREE = 0.999
"""Share of the neighbours that have to be the same; ties and rounding may swap some."""

Search = Callable[[], npt.NDArray[Any]]


def searches(gallery: Gallery, queries: Vectors, count: int) -> dict[str, Search]:
    """Each method as a function that returns the positions of the neighbours, (Q, count)."""
    # The others get vectors that are standardised already, and normalise nothing either.
    units, wanted = gallery.units.numpy(), gallery.to_units(torch.from_numpy(queries)).numpy()
    brute = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(units)
    found: dict[str, Search] = {
        "ours": lambda: gallery.nearest(queries, count).positions,
        "scikit-learn": lambda: np.asarray(brute.kneighbors(wanted, return_distance=False)),
    }
    if find_spec("faiss"):
        index = import_module("faiss").IndexFlatIP(units.shape[1])
        index.add(units)
        found["faiss"] = lambda: np.asarray(index.search(wanted, count)[1])
    return found


def agreement(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """The share of the neighbours that both have, over all queries."""
    return float(np.mean([np.isin(a, b).mean() for a, b in zip(one, other, strict=True)]))


def main(gallery_size: int, queries: int, components: int, count: int, rounds: int) -> None:
    """Print the table and the figures."""
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((gallery_size + queries, components), dtype=np.float32)
    gallery = Gallery(vectors[:gallery_size])
    methods = searches(gallery, vectors[gallery_size:], count)
    found: dict[str, npt.NDArray[Any]] = {}

    def keep(name: str) -> Search:
        return lambda: found.setdefault(name, methods[name]())

    kept = {name: keep(name) for name in methods}
    for run in kept.values():
        run()
    shares = {name: agreement(found["ours"], positions) for name, positions in found.items()}
    if min(shares.values()) < AGREE:
        raise InputError(f"the methods do not find the same neighbours: {shares}")
    before = time.process_time()
    methods["ours"]()
    processor = time.process_time() - before
    seconds = measure(methods, rounds, warm_up=0)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    table = pd.DataFrame({"method": name, "seconds": medians[name], "same": shares[name]} for name in methods)
    size = {"gallery": gallery_size, "queries": queries, "components": components, "neighbours": count}
    machine = {"threads": torch.get_num_threads(), "cores": os.cpu_count()}
    others = {name: medians[name] for name in methods if name != "ours"}
    report(table, {**size, **machine, "seconds": medians["ours"], "processor_seconds": processor, "others": others})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gallery", type=int, default=100_000, help="default: %(default)s")
    parser.add_argument("--queries", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument("--components", type=int, default=256, help="default: %(default)s")
    parser.add_argument("--neighbours", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    arguments = parser.parse_args()
    sizes = arguments.gallery, arguments.queries, arguments.components, arguments.neighbours
    run_main(lambda: main(*sizes, arguments.rounds))
