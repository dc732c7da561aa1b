"""From 16-bit values to 8 bits: what the user states, and the percentiles of a source's values, if that is stated.

A value v becomes round(255 * v / white), at most 255, where ``white`` is 65535, a fixed maximum, or a percentile of the
values of a channel in all images of the source. Percentiles are exact: all values are counted, in a pass over the
images before they are packed. The counts of each `CHUNK` samples are kept in a file, so that an interrupted pass
resumes, and sums of whole numbers do not depend on the order or the number of threads.
"""

import math
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from fractions import Fraction
from hashlib import blake2b
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.core import processors
from pipeline.core.errors import InputError, Problem
from pipeline.core.labels import CHANNELS
from pipeline.core.pack_params import ChannelScaling, Percentile
from pipeline.core.paths import replacing
from pipeline.core.progress import track
from pipeline.sources.threads import in_threads

LEVELS = 2**16
CHUNK = 256
"""Samples whose values are counted in one file: what a killed pass counts again, at most."""
FOLDER = "counts"
"""Where these files are, beside the partly packed images."""

Counts = npt.NDArray[np.int64]
"""(4, 65536), how many pixels of a channel have a value."""
Table = npt.NDArray[np.uint8]
"""(65536,), the 8-bit level of each value."""


def level_table(white: int) -> Table:
    """The 8-bit level of each 16-bit value v: 255 * v / white, rounded half up, at most 255."""
    return np.minimum((np.arange(LEVELS) * 510 + white) // (2 * white), 255).astype(np.uint8)


def white_levels(
    scaling: ChannelScaling,
    stamps: Sequence[str],
    count: Callable[[int], Counts | list[Problem]],
    folder: Path,
    made_by: str,
) -> tuple[dict[str, int], list[Problem]]:
    """The value of each channel that becomes white.

    Args:
        scaling: what the user states.
        stamps: of the files of each sample.
        count: counts the values of a sample, or returns its problems; thread-safe.
        folder: where the counts of an interrupted pass are; an existing folder.
        made_by: identifies what determines the counts besides the files.

    Returns:
        They, by channel; and the problems of the samples. If there are problems, the levels are of the other samples.

    Raises:
        InputError: a percentile is 0.
    """
    stated = dict(scaling)
    white = {channel: LEVELS - 1 if value == "full" else value for channel, value in stated.items()}
    problems = list[Problem]()
    if any(isinstance(value, Percentile) for value in stated.values()):
        counts, problems = _count_all(stamps, count, folder, made_by)
        for channel, total in zip(CHANNELS, counts, strict=True):
            value = stated[channel]
            if isinstance(value, Percentile):
                white[channel] = percentile(total, value.percentile)
                if not white[channel] and not problems:
                    raise InputError(
                        f"pack.scaling: percentile {value.percentile} of the values of {channel} is 0: state a higher "
                        "one, or a maximum"
                    )
    return white, problems


def percentile(counts: npt.NDArray[np.int64], share: float) -> int:
    """The smallest value that at least ``share`` percent of the values do not exceed; 0 without values.

    Args:
        counts: (65536,), how many there are of each value.
        share: above 0 and at most 100.
    """
    below = counts.cumsum()
    # Exact, as a float is not: 99.9 % of 1000 values are 999 of them.
    return int(np.searchsorted(below, math.ceil(Fraction(str(share)) * int(below[-1]) / 100))) if below[-1] else 0


def _count_all(
    stamps: Sequence[str], count: Callable[[int], Counts | list[Problem]], folder: Path, made_by: str
) -> tuple[Counts, list[Problem]]:
    """Add up the counts of all samples, and collect their problems."""
    total, problems = np.zeros((len(CHANNELS), LEVELS), dtype=np.int64), list[Problem]()
    chunks = [range(start, min(start + CHUNK, len(stamps))) for start in range(0, len(stamps), CHUNK)]
    files = [folder / FOLDER / f"{_key(made_by, [stamps[row] for row in chunk])}.npz" for chunk in chunks]
    (folder / FOLDER).mkdir(exist_ok=True)
    known = {file: counts for file in files if (counts := _read(file)) is not None}
    for counts in known.values():
        total += counts
    left = [(chunk, file) for chunk, file in zip(chunks, files, strict=True) if file not in known]
    rows = [row for chunk, _ in left for row in chunk]
    with closing(in_threads(count, rows, processors.usable())) as results:
        shown: Iterator[Counts | list[Problem]] = iter(track(results, "measuring 16-bit values", total=len(rows)))
        for chunk, file in left:
            own, found = np.zeros_like(total), list[Problem]()
            for _ in chunk:
                result = next(shown)
                if isinstance(result, list):
                    found += result
                else:
                    own += result
            if not found:
                with replacing(file) as temporary, temporary.open("wb") as opened:
                    np.savez_compressed(opened, counts=own)
            total += own
            problems += found
    return total, problems


def _key(made_by: str, stamps: Sequence[str]) -> str:
    return blake2b("\n".join([made_by, *stamps]).encode(), digest_size=16).hexdigest()


def _read(file: Path) -> Counts | None:
    """The counts in a file, or None if it is missing, or damaged as after a power failure."""
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            counts: Counts = arrays["counts"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return counts if counts.shape == (len(CHANNELS), LEVELS) and counts.dtype == np.int64 else None


def describe(white: Mapping[str, int]) -> str:
    """The levels as part of a message."""
    return ", ".join(f"{channel} {white[channel]}" for channel in CHANNELS)
