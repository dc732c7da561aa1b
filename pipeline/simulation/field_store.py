"""Simulated fields with their masks as arrays on disk, for training on tens of thousands of them.

Fields are stored in shards, each of which is complete or absent. An interrupted drawing continues with the absent
shards, and the bytes depend neither on interruptions nor on the number of processes.
"""

import hashlib
import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.core import code_digest
from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS
from pipeline.core.params import Simulation
from pipeline.core.paths import RESUME, replacing
from pipeline.core.progress import count
from pipeline.simulation.competition import Entry
from pipeline.simulation.competition_archive import in_order
from pipeline.simulation.raster import covered
from pipeline.simulation.render import render_with_masks
from pipeline.sources.images import shrink_quickly

CELL = 8
"""Side of a mask's position, in pixels of the stored image: the stride of the finest level of the feature pyramid."""
SHARD = 250
"""Fields per shard."""

Image = npt.NDArray[np.uint8]
Bits = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class Shard:
    """Some fields, as memory maps.

    Attributes:
        images: (N, S, S, 4) uint8.
        bits: (N, S / 8, S / 8) uint32; bit l is set at positions where a pixel shows label l.
    """

    images: Image
    bits: Bits


def folder_of(settings: Simulation, size: int) -> Path:
    """The folder for the fields of a simulation, stored at a size; other parameters or code have another folder."""
    text = f"{settings.model_dump_json()} {size} {code_digest.of_module(__name__)}"
    return RESUME / "weights" / f"fields-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def draw_fields(folder: Path, entries: Sequence[Entry], settings: Simulation, size: int, workers: int) -> list[Shard]:
    """Draw the fields that the folder does not contain yet; return all of them, in the order of ``entries``.

    Args:
        folder: for these entries and parameters alone.
        entries: the fields.
        settings: of the simulation; fields are drawn at its ``size``.
        size: side of the stored images in pixels, a multiple of 8; fields are shrunk to it by area.
        workers: processes that draw.
    """
    starts = range(0, len(entries), SHARD)
    shards = {folder / f"fields-{start:06d}": entries[start : start + SHARD] for start in starts}
    absent = {path: part for path, part in shards.items() if not path.exists()}
    missing = [entry for part in absent.values() for entry in part]
    _check_disk(folder, len(missing), size)
    drawn = in_order(partial(_draw, settings=settings, size=size), missing, workers)
    with closing(drawn), count("simulate", total=len(entries), unit="fields") as bar:
        bar.update(len(entries) - len(missing))
        for path, part in absent.items():
            with replacing(path) as temporary:
                temporary.mkdir()
                images = _empty(temporary / "images.npy", (len(part), size, size, 4), np.uint8)
                bits = _empty(temporary / "bits.npy", (len(part), size // CELL, size // CELL), np.uint32)
                for number in range(len(part)):
                    images[number], bits[number] = next(drawn)
                    bar.update(1)
    return [Shard(*(np.load(path / f"{name}.npy", mmap_mode="r") for name in ("images", "bits"))) for path in shards]


def _check_disk(folder: Path, fields: int, size: int) -> None:
    needed = fields * size**2 * len(CHANNELS)
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"{folder}: {fields:,} fields of {size} px take {needed / 1e9:.1f} GB, but only {free / 1e9:.1f} GB are "
            "free: make room, or lower fields.train in the profile"
        )


def _draw(entry: Entry, settings: Simulation, size: int) -> tuple[Image, Bits]:
    image, masks = render_with_masks(entry, settings)
    bits = np.zeros((size // CELL, size // CELL), np.uint32)
    for label in entry.labels:
        bits |= covered(masks[label], size // CELL).astype(np.uint32) << np.uint32(label)
    return shrink_quickly(image, size), bits


def _empty(path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    return np.lib.format.open_memmap(path, "w+", dtype, shape)
