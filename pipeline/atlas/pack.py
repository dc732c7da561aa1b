"""Packing: every image of a source decoded once, checked, brought to one size and written into one array."""

import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd

from pipeline.atlas import images
from pipeline.atlas.archive import Archive
from pipeline.atlas.packed import COLUMNS, IMAGES, INDEX
from pipeline.atlas.perceptual import perceptual_hash
from pipeline.atlas.problems import Problem, refuse
from pipeline.errors import InputError
from pipeline.labels import CHANNELS
from pipeline.progress import track

SPARE_BYTES = 64 * 2**20
"""Room on the disk for all that is written besides the images."""

AHEAD = 2
"""Samples in work or waiting to be written, for each thread."""

T = TypeVar("T")
R = TypeVar("R")


class Packed(NamedTuple):
    """One sample: its pixels, (S, S, 4), and its own columns of the index; or its problems."""

    pixels: images.Image | None
    figures: dict[str, str | int | float]
    problems: list[Problem]


def pack(
    archive: Archive, samples: pd.DataFrame, size: int, folder: Path, problems: Iterable[Problem] = ()
) -> pd.DataFrame:
    """Write ``images.npy`` and ``index.csv`` of a source.

    Samples are decoded in one thread a core (OpenCV lets go of the interpreter's lock) and written one after
    the other, so that the memory needed does not depend on their number.

    Args:
        archive: the source's files.
        samples: ``id``, ``split``, ``target`` and ``group``, in the order to pack.
        size: side of the packed images in pixels.
        folder: an existing folder.
        problems: what is known to be wrong already; the images are checked all the same, and nothing is kept.

    Returns:
        The index.

    Raises:
        InputError: a sample is missing or bad (the message counts them all), or the disk is too small.
    """
    shape = (len(samples), size, size, len(CHANNELS))
    _check_space(folder, int(np.prod(shape)) + SPARE_BYTES)
    found, rows = list(problems), []
    # Not a memory map: on a full disk that ends the process by a signal where writing raises an error.
    with (folder / IMAGES).open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        results = in_threads(lambda id_: pack_sample(archive, id_, size), samples["id"], os.cpu_count() or 1)
        for sample in track(results, "packing", total=len(samples)):
            found += sample.problems
            rows.append(sample.figures)
            if not found and sample.pixels is not None:
                file.write(sample.pixels.data)
    refuse(archive.folder, found)
    index = samples.assign(row=np.arange(len(samples))).join(pd.DataFrame(rows, index=samples.index))[list(COLUMNS)]
    index.to_csv(folder / INDEX, index=False, float_format="%.6f", lineterminator="\n")
    return index


def pack_sample(archive: Archive, id_: str, size: int) -> Packed:
    """Read, check and fit the four channels of one sample."""
    pixels, figures, problems = [], dict[str, str | int | float](), []
    sides = {}
    for channel in CHANNELS:
        name = _file_name(archive, f"{id_}_{channel}")
        try:
            data = _read(archive, name)
            image = images.decode(data, channel)
        except InputError as error:
            where = archive.members[name].where if name in archive.members else name
            problems.append(Problem(where, str(error)))
            continue
        pixels.append(images.fit(image, size))
        sides[channel] = len(image)
        figures |= _figures(channel, data, image)
    if len(set(sides.values())) > 1:
        listed = ", ".join(f"{channel} {side}" for channel, side in sides.items())
        problems.append(Problem(f"{id_} ({listed})", "channels of different sizes: download the four files again"))
    if problems:
        return Packed(None, {}, problems)
    image = images.merge(pixels)
    figures["height"] = figures["width"] = sides[CHANNELS[0]]
    figures["phash"] = perceptual_hash(image)
    return Packed(image, figures, [])


def in_threads(work: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """Map ``work`` over items in threads, in order, never more than a few items ahead of who reads."""
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) >= AHEAD * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _file_name(archive: Archive, stem: str) -> str:
    """The competition's PNG, or else the atlas's JPEG."""
    jpeg = f"{stem}.jpg"
    return jpeg if jpeg in archive.members and f"{stem}.png" not in archive.members else f"{stem}.png"


def _read(archive: Archive, name: str) -> bytes:
    if name not in archive.members:
        raise InputError("files are missing: download the archive again")
    if name in archive.repeated:
        raise InputError("files are there more than once: leave one of each")
    return archive.members[name].read()


def _figures(channel: str, data: bytes, image: images.Image) -> dict[str, str | int | float]:
    mean, deviation, saturated = images.statistics(image)
    return {
        f"digest_{channel}": blake2b(data, digest_size=8).hexdigest(),
        f"mean_{channel}": mean,
        f"std_{channel}": deviation,
        f"saturated_{channel}": saturated,
    }


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{folder.parent}: {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free: "
            "free some space, or lower pack.size in params.yaml"
        )
