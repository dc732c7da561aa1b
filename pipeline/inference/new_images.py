"""Reading new images, which belong to no source: finding, checking and decoding them in batches, as packing does."""

import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from pipeline.core import processors
from pipeline.core.errors import InputError, Problem, raise_problems
from pipeline.core.labels import CHANNELS
from pipeline.core.progress import track
from pipeline.sources import zips
from pipeline.sources.archive import Archive, Loose, Member, open_archive, spellings
from pipeline.sources.file_names import ENDINGS
from pipeline.sources.images import Image, decode_composite, fit
from pipeline.sources.packing import size_problems
from pipeline.sources.stored_images import read_file, read_stain
from pipeline.sources.threads import in_threads

COMPOSITE_STAINS = ("green", "blue", "red")
"""The stains that an RGB composite shows."""

REMEDY = "add them, or name the stains that all samples have, for example --stains green,blue"
"""What to do about missing files."""

_COMPOSITE_TYPES = ("png", "jpg", "jpeg", "PNG", "JPG", "JPEG")


@dataclass(frozen=True)
class Layout:
    """Which files make up a sample.

    Attributes:
        stains: the channels to read, in the order of ``CHANNELS``; the others are 0, as with ``augment.drop_stains``.
        rgb: a sample is one file, an RGB composite; otherwise it is one file per stain.
    """

    stains: tuple[str, ...] = CHANNELS
    rgb: bool = False

    @property
    def file_name(self) -> re.Pattern[str]:
        """Pattern of the name of a sample's file; its first group is the id."""
        end = "" if self.rgb else f"_(?:{'|'.join(self.stains)})"
        types = "|".join(_COMPOSITE_TYPES if self.rgb else (re.escape(ending[1:]) for ending in ENDINGS))
        # Names with a leading dot are excluded: macOS adds such a companion to every file it copies.
        return re.compile(rf"([^.].*){end}\.(?:{types})" if self.rgb else rf"([^.].*)(?i:{end}\.(?:{types}))")


FOUR_FILES = Layout()
"""The competition's layout, also that of the Human Protein Atlas's JPEGs of single stains."""


def choose_layout(stains: str | None, *, rgb: bool) -> Layout:
    """The files of a sample, from the values of ``--stains`` and ``--rgb``.

    Raises:
        InputError: ``stains`` lacks the protein, or names a stain that does not exist or that a composite lacks.
    """
    possible = COMPOSITE_STAINS if rgb else CHANNELS
    if stains is None:
        return Layout(possible, rgb)
    named = stains.split(",")
    if rgb and "yellow" in named:
        raise InputError(f"--stains {stains}: an RGB composite (--rgb) has no yellow stain")
    if CHANNELS[0] not in named or not set(named) <= set(possible):
        raise InputError(
            f"--stains {stains}: name {CHANNELS[0]}, which is the protein, and any of {', '.join(possible[1:])}; "
            "separate them by commas only"
        )
    return Layout(tuple(channel for channel in CHANNELS if channel in named), rgb)


@contextmanager
def open_places(places: Sequence[Path]) -> Iterator[Archive]:
    """Open folders, zips and single files as one archive; a file that is named twice counts once.

    Raises:
        InputError: a path is missing, or a zip is damaged, unsafe or nested too deeply.
    """
    members: dict[str, Member] = {}
    repeated: dict[str, list[str]] = {}
    with ExitStack() as stack:
        # Links are not resolved: the id and the channel come from the name of the link.
        for place in dict.fromkeys(place.absolute() for place in places):
            seen = set[str]()  # a zip can have two files of one name
            for member in _members(place, stack):
                name = member.where.rpartition("/")[2]
                first = members.setdefault(name, member)
                if first.where != member.where or member.where in seen:
                    repeated.setdefault(name, [first.where]).append(member.where)
                seen.add(member.where)
        folder = places[0] if len(places) == 1 else Path("images")
        yield Archive(folder, members, repeated, spellings(members, repeated))


def sample_ids(archive: Archive, layout: Layout = FOUR_FILES) -> list[str]:
    """The ids of the samples, sorted. Other files are ignored.

    The id is ID in ID_green.png, ID_green.jpg or ID_green.tif, likewise for the other stains of the layout, or in
    ID.png, ID.jpg or ID.jpeg of an RGB composite.

    Raises:
        InputError: there are no such files.
    """
    matches = (layout.file_name.fullmatch(name) for name in archive.members)
    ids = sorted({match[1] for match in matches if match})
    if not ids and layout.rgb:
        raise InputError(f"{archive.folder}: no images found: an RGB composite is a file ID.png or ID.jpg")
    if not ids:
        raise InputError(
            f"{archive.folder}: no images found: name the files of a sample "
            + ", ".join(f"ID_{channel}.png" for channel in layout.stains)
            + ", or give --rgb if each file is an RGB composite"
        )
    return ids


def batches(
    archive: Archive,
    ids: Sequence[str],
    size: int,
    batch_size: int,
    layout: Layout = FOUR_FILES,
    purpose: str = "predicting",
) -> Generator[tuple[list[str], Image], None, None]:
    """Decode samples batch by batch, so that the memory needed does not depend on their number.

    After the first invalid sample, the others are only checked, so that all problems are reported together.

    Args:
        archive: the files.
        ids: of the samples.
        size: side of the images to return.
        batch_size: number of samples in a batch, except the last.
        layout: which files make up a sample.
        purpose: what the progress bar says is done.

    Yields:
        The ids of a batch and its images, (B, size, size, 4) uint8; channels that the layout lacks are 0.

    Raises:
        InputError: samples are incomplete or invalid; the message reports all of them.
    """
    read = _read_composite if layout.rgb else _read_stains

    def work(id_: str) -> Image | list[Problem]:
        pixels = np.zeros((size, size, len(CHANNELS)), np.uint8)
        return read(archive, id_, layout.stains, pixels) or pixels

    problems: list[Problem] = []
    ready: dict[str, Image] = {}
    with closing(in_threads(work, ids, processors.usable())) as results:
        for id_, result in zip(ids, track(results, purpose, total=len(ids)), strict=True):
            if isinstance(result, list):
                problems += result
                ready.clear()
            elif not problems:
                ready[id_] = result
            if len(ready) == batch_size:
                yield list(ready), np.stack(list(ready.values()))
                ready.clear()
    raise_problems(archive.folder, problems)
    if ready:
        yield list(ready), np.stack(list(ready.values()))


def _read_stains(archive: Archive, id_: str, stains: Sequence[str], into: Image) -> list[Problem]:
    """Read a sample from one file per stain; write its channels to (S, S, 4)."""
    problems, sides = list[Problem](), dict[str, int]()
    for channel in stains:
        found = read_stain(archive, id_, channel, REMEDY)
        if isinstance(found, Problem):
            problems.append(found)
            continue
        _, image = found
        sides[channel] = len(image)
        into[..., CHANNELS.index(channel)] = fit(image, len(into))
    return problems + size_problems(id_, sides)


def _read_composite(archive: Archive, id_: str, stains: Sequence[str], into: Image) -> list[Problem]:
    """Read a sample from an RGB composite; write its channels to (S, S, 4)."""
    names = [name for type_ in _COMPOSITE_TYPES if (name := f"{id_}.{type_}") in archive.members]
    if len(names) > 1:
        return [Problem(" and ".join(names), "files with the same id: keep or name one of them")]
    try:
        found = decode_composite(read_file(archive, names[0]))
    except InputError as error:
        return [Problem(archive.members[names[0]].where, str(error))]
    for channel in stains:
        into[..., CHANNELS.index(channel)] = fit(found[channel], len(into))
    return []


def _members(place: Path, stack: ExitStack) -> Iterator[Member]:
    """The files at a path, identified by their full paths."""
    if place.is_dir():
        archive = stack.enter_context(open_archive(place))
        for name, member in archive.members.items():
            for where in archive.repeated.get(name, [member.where]):
                yield member._replace(where=f"{place}/{where}")
    elif not place.exists():
        raise InputError(f"{place} is missing: name existing folders, zips or image files")
    elif zips.is_zip(PurePosixPath(place.name)):
        for member in zips.members(place, PurePosixPath(place.name), stack):
            yield member._replace(where=f"{place.parent}/{member.where}")
    else:
        yield Loose(str(place), place)
