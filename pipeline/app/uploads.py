"""The files of an upload as samples: one file per stain, RGB composites, or a zip of either.

Nothing is written, so a name can lead nowhere; a zip is read in memory and its members one at a time.
"""

import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from pipeline.core import stray_files
from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS
from pipeline.sources import images, zips
from pipeline.sources.file_names import ENDINGS
from pipeline.sources.images import Image
from pipeline.sources.packing import size_problems

FILES = 1000
"""Most files of an upload, those in its zips included."""

COMPOSITE = "composite"
"""In place of the stain, for a file that shows several."""

UNNAMED = "sample"
"""The id of files whose names have none, such as green.png."""

_STAIN_FILE = re.compile(
    rf"(?:(.+)_)?({'|'.join(CHANNELS)})(?:{'|'.join(re.escape(ending) for ending in ENDINGS)})", re.IGNORECASE
)
_COMPOSITE_FILE = re.compile(r"(.+)\.(?:png|jpe?g)", re.IGNORECASE)
_ENTRY = b"PK\x01\x02"
"""What each entry of a zip's directory begins with."""
_FAULTS = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, OverflowError, OSError)
"""Exceptions that zipfile raises for invalid zips."""


class Part(NamedTuple):
    """A file as it was sent; ``stain`` is one of ``CHANNELS``, or empty if its name has to tell."""

    name: str
    data: bytes
    stain: str = ""


class UploadedFile(NamedTuple):
    """A file of a sample, which is read when it is needed."""

    name: str
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Upload:
    """The samples of an upload, which are not decoded yet.

    Attributes:
        samples: the files of each sample by its id, in the order of the ids; its files by stain, or one `COMPOSITE`.
        ignored: names of files that belong to no sample.
    """

    samples: Mapping[str, Mapping[str, UploadedFile]]
    ignored: Sequence[str]


@dataclass(frozen=True)
class Sample:
    """A sample as the models see it, and what its files were like.

    Attributes:
        id: of the sample.
        pixels: (S, S, 4) uint8; stains that it lacks are 0.
        stains: those that it has, in the order of ``CHANNELS``.
        side: of its images in pixels, before they were resized.
        brightness: mean, standard deviation and saturated share of each stain, see ``images.statistics``.
    """

    id: str
    pixels: Image
    stains: tuple[str, ...]
    side: int
    brightness: Mapping[str, tuple[float, float, float]]


def read_upload(parts: Sequence[Part]) -> Upload:
    """Find the samples among the files of an upload.

    If the names of some files have a stain, the other files are ignored; otherwise each PNG or JPEG is an RGB
    composite.

    Raises:
        InputError: there is no sample, a file is repeated, or a zip is damaged or unsafe.
    """
    if not parts:
        raise InputError("no file came: choose four images, a zip or an RGB composite")
    named = list(_files(parts))
    if len(named) > FILES:
        raise InputError(f"more than {FILES:,} files: send fewer samples at a time")
    stains = [(file, *found) for file, stain in named if (found := _stain(file.name, stain)) is not None]
    if stains:
        chosen = stains
    else:
        matches = ((file, _COMPOSITE_FILE.fullmatch(file.name)) for file, _ in named)
        chosen = [(file, match[1], COMPOSITE) for file, match in matches if match]
    if not chosen:
        listed = ", ".join(file.name for file, _ in named[:5]) or "an empty zip"
        raise InputError(
            f"no images found ({listed}): name the files of a sample ID_green.png, ID_blue.png, ID_red.png and "
            "ID_yellow.png, or send one RGB composite as PNG or JPEG"
        )
    samples: dict[str, dict[str, UploadedFile]] = {}
    for file, id_, stain in chosen:
        first = samples.setdefault(id_, {}).setdefault(stain, file)
        if first is not file:
            both = first.name if first.name == file.name else f"{first.name} and {file.name}"
            raise InputError(f"two files for one image ({both}): keep one of them")
    used = {id(file) for file, _, _ in chosen}
    ignored = [file.name for file, _ in named if id(file) not in used]
    return Upload(dict(sorted(samples.items())), ignored)


def decode_sample(upload: Upload, id_: str, size: int) -> Sample:
    """Read, check and decode one sample, exactly as `predict` does.

    Args:
        upload: has the sample.
        id_: of the sample.
        size: side in pixels to resize its images to, ``pack.size``.

    Raises:
        InputError: its files are no images, do not fit together, or show no protein; the message names all of them.
    """
    files = upload.samples[id_]
    found: dict[str, Image] = {}
    problems: list[str] = []
    for stain, file in files.items():
        try:
            data = file.read()
            if not data:
                raise InputError("an empty file: choose it again")
            found |= images.decode_composite(data) if stain == COMPOSITE else {stain: images.decode(data, stain)}
        except InputError as error:
            problems.append(f"{file.name}: {error}")
    stains = tuple(channel for channel in CHANNELS if channel in found)
    sides = {channel: len(found[channel]) for channel in stains}
    problems += [f"{problem.where}: {problem.what}" for problem in size_problems(id_, sides)]
    if not problems and CHANNELS[0] not in found:
        problems.append(f"{id_}: the image of the protein, {id_}_{CHANNELS[0]}.png, is missing: add it")
    if problems:
        raise InputError("; ".join(problems))
    pixels = np.zeros((size, size, len(CHANNELS)), np.uint8)
    for channel in stains:
        pixels[..., CHANNELS.index(channel)] = images.fit(found[channel], size)
    brightness = {channel: images.statistics(found[channel]) for channel in stains}
    return Sample(id_, pixels, stains, sides[CHANNELS[0]], brightness)


def _stain(name: str, stated: str) -> tuple[str, str] | None:
    """Id and stain of a file; None if neither the form nor its name has a stain."""
    match = _STAIN_FILE.fullmatch(name)
    if stated:
        return UNNAMED, stated
    return (match[1] or UNNAMED, match[2].lower()) if match else None


def _files(parts: Iterable[Part]) -> Iterator[tuple[UploadedFile, str]]:
    """All files, those in zips included, and the stain that the form names; without those of other programs."""
    for part in parts:
        name = PurePosixPath(part.name.replace("\\", "/")).name
        if part.data.startswith(b"PK") or name.lower().endswith(".zip"):
            if part.stain:
                raise InputError(f"{name}: a zip in the place of one stain: drop it on the page instead")
            yield from ((file, "") for file in _members(name, part.data))
        elif not name.startswith(".") or part.stain:
            yield UploadedFile(name, partial(_given, part.data)), part.stain


def _members(path: str, data: bytes) -> Iterator[UploadedFile]:
    """The files of a zip.

    Raises:
        InputError: it is damaged, has too many files, a zip in it, or a name that leads out of it.
    """
    # Counted before zipfile makes an object of each: a directory of millions of entries would fill the memory.
    if data.count(_ENTRY) > FILES:
        raise InputError(f"{path}: more than {FILES:,} files: send fewer samples at a time")
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except _FAULTS as error:
        raise InputError(f"{path} is not a complete zip ({error}): make it again") from None
    for info in archive.infolist():
        name = PurePosixPath(info.filename.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or not info.filename.isprintable():
            raise InputError(f"{path} contains an unsafe file name, {info.filename[:80]!r}: make the zip again")
        if info.is_dir() or any(part.startswith(".") or stray_files.is_stray_folder(part) for part in name.parts):
            continue
        if zips.is_zip(name):
            raise InputError(f"{path}: a zip inside it, {name.name}: unpack it and send it alone")
        yield UploadedFile(name.name, partial(_read, archive, info))


def _given(data: bytes) -> bytes:
    return data


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Read a member of a zip; the memory needed is limited before anything is decompressed.

    Raises:
        InputError: it is damaged, encrypted or too large; the message does not name it.
    """
    if info.file_size > zips.MAX_BYTES:
        raise InputError(
            f"unpacks to more than {zips.MAX_BYTES >> 20} MiB, a possible decompression bomb: leave it out"
        )
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
        raise InputError("encrypted, or compressed by a method other than deflate: make the zip again")
    try:
        with archive.open(info) as member:
            return member.read(info.file_size)  # not all of it, of which zipfile would decompress up to 2 GiB
    except _FAULTS:
        raise InputError("damaged in its zip: make the zip again") from None


def missing_stains(sample: Sample) -> tuple[str, ...]:
    """The stains that a sample lacks."""
    return tuple(channel for channel in CHANNELS if channel not in sample.stains)
