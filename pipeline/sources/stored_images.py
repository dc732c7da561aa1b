"""Read the images of a sample as its source stores them: a file for each channel or one for all, with 8 or 16 bits."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np

from pipeline.core.errors import InputError, Problem
from pipeline.core.labels import CHANNELS
from pipeline.core.pack_params import ChannelScaling
from pipeline.sources import images, zips
from pipeline.sources.archive import Archive
from pipeline.sources.file_names import sample_file, stain_file
from pipeline.sources.scaling import LEVELS, Counts

REMEDY = "add all four files of the sample, or download the archive again"
"""What to do about missing files of a source."""

T = TypeVar("T")


class SourceFormat(NamedTuple):
    """How the files of a source store its images."""

    planes: tuple[str, ...] | None
    """The channels in the order of the planes of a sample's only file; None if each channel is a file."""
    scaling: ChannelScaling | None
    """What becomes white of 16-bit values; None if the images have 8 bits."""

    @property
    def limit(self) -> int:
        """Maximum size of a file in bytes."""
        return zips.MAX_BYTES if self.planes is None and self.scaling is None else zips.MAX_DEEP_BYTES

    @property
    def remedy(self) -> str:
        """What to do about missing files."""
        return REMEDY if self.planes is None else "add the sample's file, or remove the source from pack.planes"


EIGHT_BIT_STAINS = SourceFormat(None, None)
"""The competition's format, also that of the Human Protein Atlas's JPEGs."""


def count_values(archive: Archive, stem: str, form: SourceFormat) -> Counts | list[Problem]:
    """Count the values of the channels of a 16-bit sample, or list its problems."""
    counts, problems = np.zeros((len(CHANNELS), LEVELS), dtype=np.int64), list[Problem]()
    for channel, found in read_channels(archive, stem, form):
        if isinstance(found, Problem):
            problems.append(found)
        else:
            counts[CHANNELS.index(channel)] = np.bincount(found[1].reshape(-1), minlength=LEVELS)
    return problems or counts


def read_channels(
    archive: Archive, stem: str, form: SourceFormat
) -> Iterator[tuple[str, tuple[bytes, images.Image | images.DeepImage] | Problem]]:
    """The channels of a sample in the order of ``CHANNELS``, one at a time where each is a file."""
    remedy = form.remedy
    if form.planes is None:
        if sample_file(archive, stem) in archive.members:
            remedy = "if a file such as ID.tif has all channels of a sample, list them in pack.planes of params.yaml"
        for channel in CHANNELS:
            if form.scaling is None:
                yield channel, read_stain(archive, stem, channel, remedy)
            else:
                name = stain_file(archive, f"{stem}_{channel}")
                yield channel, _read(archive, name, images.decode_deep, remedy, form.limit)
        return
    decode = partial(images.decode_planes, planes=len(form.planes), deep=form.scaling is not None)
    found = _read(archive, sample_file(archive, stem), decode, remedy, form.limit)
    if isinstance(found, Problem):
        yield CHANNELS[0], found
        return
    data, decoded = found
    for channel in CHANNELS:
        yield channel, (data, decoded[form.planes.index(channel)])


def read_stain(archive: Archive, id_: str, channel: str, remedy: str) -> tuple[bytes, images.Image] | Problem:
    """Read, check and decode one channel of an 8-bit sample, (S, S) uint8; also return the file's bytes.

    Args:
        archive: all files.
        id_: id of the sample.
        channel: one of ``labels.CHANNELS``.
        remedy: what to do if the file is missing, as part of the message.
    """
    name = stain_file(archive, f"{id_}_{channel}")
    return _read(archive, name, lambda data: images.decode(data, channel), remedy, zips.MAX_BYTES)


def _read(
    archive: Archive, name: str, decode: Callable[[bytes], T], remedy: str, limit: int
) -> tuple[bytes, T] | Problem:
    """Read and decode a file of at most ``limit`` bytes."""
    if name not in archive.members:
        return Problem(name, f"files are missing: {remedy}{f' ({archive.advice})' if archive.advice else ''}")
    try:
        data = read_file(archive, name, limit)
        return data, decode(data)
    except InputError as error:
        return Problem(archive.members[name].where, str(error))


def read_file(archive: Archive, name: str, limit: int = zips.MAX_BYTES) -> bytes:
    """Read an existing file of at most ``limit`` bytes.

    Raises:
        InputError: the file cannot be read, or its name is not unique; the message does not name the file.
    """
    if name in archive.repeated:
        raise InputError("files occur more than once: keep one of each")
    return archive.members[name].read(limit)
