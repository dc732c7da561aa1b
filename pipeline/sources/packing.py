"""Pack a source: decode and check every image once, resize it, and write it to one array."""

import shutil
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from hashlib import blake2b
from pathlib import Path
from queue import SimpleQueue
from types import MappingProxyType

import numpy as np
import pandas as pd

from pipeline.core import code_digest, paths, processors
from pipeline.core.errors import InputError, Problem, raise_problems
from pipeline.core.labels import CHANNELS
from pipeline.core.progress import say, track
from pipeline.sources import images, perceptual_hash
from pipeline.sources.archive import Archive
from pipeline.sources.file_names import sample_file, stain_file
from pipeline.sources.pack_journal import Figures, JournalRow, open_partial
from pipeline.sources.packed_array import COLUMNS
from pipeline.sources.scaling import Table, describe, level_table, white_levels
from pipeline.sources.stored_images import EIGHT_BIT_STAINS, SourceFormat, count_values, read_channels
from pipeline.sources.threads import in_threads

IMAGES, INDEX = "images.npy", "index.csv"
"""The files that ``pack`` writes."""

SPARE_BYTES = 64 * 2**20
"""Disk space for everything that is written besides the images."""

MEASURED = list(COLUMNS)[list(COLUMNS).index("height") :]
"""The columns of the index that are computed from the images."""


def pack(
    archive: Archive,
    samples: pd.DataFrame,
    size: int,
    folder: Path,
    problems: Iterable[Problem] = (),
    form: SourceFormat = EIGHT_BIT_STAINS,
) -> pd.DataFrame:
    """Write ``images.npy`` and ``index.csv`` of a source, resuming from what an earlier run left in the folder.

    One thread per core reads, decodes and writes samples; OpenCV and system calls release the GIL. Only a few samples
    are in memory at a time. The state that a later run resumes from is kept in the same folder: see ``pack_journal``.

    Args:
        archive: the source's files.
        samples: ``id``, ``split``, ``target``, ``files`` and ``group``, in the order to pack.
        size: side of the packed images in pixels.
        folder: an existing folder.
        problems: problems that are already known; the images are checked as well.
        form: how the files store the images.

    Returns:
        The index.

    Raises:
        InputError: samples are missing or invalid (the message counts all problems), or the disk is too small.
    """
    shape = (len(samples), size, size, len(CHANNELS))
    _check_space(folder, int(np.prod(shape)) + SPARE_BYTES)
    stems = samples["files"].tolist()
    stamps = [_stamp(archive, stem, form) for stem in stems]
    found = list(problems)
    threads = processors.usable()
    white = _white_levels(archive, stems, stamps, folder, form, found) if form.scaling else {}
    tables = {channel: level_table(level) for channel, level in white.items()}
    with open_partial(folder, IMAGES, shape, _maker(form, white), stamps) as packed:
        if packed.done:
            say(f"{len(packed.done):,} of {len(stems):,} samples were packed by an earlier run")
        left = [row for row in range(len(stems)) if row not in packed.done]

        # One buffer per thread, reused for all samples: faulting in new pages takes longer than writing to them.
        buffers = SimpleQueue[images.Image]()
        for _ in range(threads):
            buffers.put(np.empty(shape[1:], np.uint8))

        def work(row: int) -> JournalRow | list[Problem]:
            """Pack one row; return its journal entry, or what is wrong with the sample."""
            pixels = buffers.get()
            try:
                result = pack_sample(archive, stems[row], pixels, form, tables)
                if isinstance(result, list):
                    return result
                return JournalRow(row, stamps[row], packed.write(row, pixels), result)
            finally:
                buffers.put(pixels)

        # Closed before the file, so that no thread writes to a descriptor that has been reused for another file.
        with closing(in_threads(work, left, threads)) as results:
            for result in track(results, "packing", total=len(left)):
                if isinstance(result, JournalRow):
                    packed.record(result)
                else:
                    found += result
        raise_problems(archive.folder, found)
        measured = pd.DataFrame([packed.done[row] for row in range(len(stems))], samples.index, MEASURED)
    index = samples.assign(row=np.arange(len(stems))).join(measured)[list(COLUMNS)]
    index.to_csv(folder / INDEX, index=False, float_format="%.6f", lineterminator="\n")
    return index


def pack_sample(
    archive: Archive,
    stem: str,
    into: images.Image,
    form: SourceFormat = EIGHT_BIT_STAINS,
    tables: Mapping[str, Table] = MappingProxyType({}),
) -> Figures | list[Problem]:
    """Read, check and resize the four channels of one sample.

    Args:
        archive: the source's files.
        stem: what the names of the sample's files begin with.
        into: (S, S, 4) uint8, the array to write the pixels to.
        form: how the files store the images.
        tables: of 16-bit images, by channel.

    Returns:
        The values of the columns ``MEASURED``, or the problems of the sample.
    """
    pixels, thumbnails, figures, problems = [], [], list[str | int | float](), []
    sides = {}
    for channel, found in read_channels(archive, stem, form):
        if isinstance(found, Problem):
            problems.append(found)
            continue
        data, stored = found
        image = tables[channel][stored] if form.scaling else stored.astype(np.uint8, copy=False)
        # Resized one at a time: holding four full-size channels in each of many threads could fill the memory.
        pixels.append(images.fit(image, len(into)))
        thumbnails.append(perceptual_hash.thumbnail(pixels[-1]))
        sides[channel] = len(image)
        figures += [digest(data), *images.statistics(image)]
    problems += size_problems(stem, sides)
    if problems:
        return problems
    side = sides[CHANNELS[0]]
    images.merge(pixels, into)
    return (side, side, perceptual_hash.perceptual_hash(np.dstack(thumbnails)), *figures)


def _white_levels(
    archive: Archive,
    stems: Sequence[str],
    stamps: Sequence[str],
    folder: Path,
    form: SourceFormat,
    found: list[Problem],
) -> dict[str, int]:
    """The 16-bit values that become white, by channel.

    Raises:
        InputError: samples are missing or invalid, in addition to what was ``found`` before.
    """
    assert form.scaling is not None  # for the type checker
    white, problems = white_levels(
        form.scaling, stamps, lambda row: count_values(archive, stems[row], form), folder, _maker(form, {})
    )
    if problems:
        raise_problems(archive.folder, [*found, *problems])
    say(f"{archive.folder}: 16-bit values that become white: {describe(white)}")
    return white


def size_problems(id_: str, sides: Mapping[str, int]) -> list[Problem]:
    """The problem of a sample whose channels have different sides; empty if all are the same."""
    if len(set(sides.values())) <= 1:
        return []
    listed = ", ".join(f"{channel} {side}" for channel, side in sides.items())
    return [Problem(f"{id_} ({listed})", "channels of different sizes: download all files of the sample again")]


def digest(data: bytes) -> str:
    """CRC-32 and length of a file, as 16 hexadecimal digits.

    Enough to tell different images apart, since the digests of all four files of a sample are compared. Takes 1/70 of
    the time of decoding.
    """
    return f"{zlib.crc32(data):08x}{len(data):08x}"


def _stamp(archive: Archive, stem: str, form: SourceFormat) -> str:
    """A text that changes whenever one of a sample's files changes."""
    if form.planes is None:
        names = [stain_file(archive, f"{stem}_{channel}") for channel in CHANNELS]
    else:
        names = [sample_file(archive, stem)]
    parts = [f"{name} {archive.members[name].stamp()}" for name in names if name in archive.members]
    return blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()


def _maker(form: SourceFormat, white: Mapping[str, int]) -> str:
    """Identify what determines pixels and figures besides the files and the size: this code, OpenCV, the format."""
    determining = f"{code_digest.of_module(__name__)} {form.planes} {form.scaling is not None} {sorted(white.items())}"
    return blake2b(determining.encode(), digest_size=16).hexdigest() + images.VERSION


def _check_space(folder: Path, needed: int) -> None:
    reusable = sum(path.stat().st_blocks * 512 for path in folder.iterdir())
    free = shutil.disk_usage(folder).free + reusable
    if free < needed:
        raise InputError(
            f"{folder}: needs {needed / 1e9:.1f} GB of disk space, but only {free / 1e9:.1f} GB are free: make room, "
            f"move {paths.PACKED} to a larger disk and put a link to it in its place, or lower pack.size in params.yaml"
        )
