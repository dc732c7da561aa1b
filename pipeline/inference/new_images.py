"""Images that belong to no source: found wherever they stand, decoded and checked as packing does, batch by batch."""

import os
import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path, PurePosixPath

import numpy as np

from pipeline.core.errors import InputError, Problem, raise_problems
from pipeline.core.labels import CHANNELS
from pipeline.core.progress import track
from pipeline.sources import zips
from pipeline.sources.archive import Archive, Loose, Member, open_archive
from pipeline.sources.images import Image
from pipeline.sources.packing import in_threads, pack_sample

# Not with a dot in front: copying from a Mac leaves such a companion beside every file.
_FILE = re.compile(rf"([^.].*)_(?:{'|'.join(CHANNELS)})\.(?:png|jpg)")


@contextmanager
def open_places(places: Sequence[Path]) -> Iterator[Archive]:
    """Find the files of some folders, zips and single files, which count once however often they are named.

    Raises:
        InputError: a place is missing, or a zip is damaged, unsafe or nested too deeply.
    """
    members: dict[str, Member] = {}
    repeated: dict[str, list[str]] = {}
    with ExitStack() as stack:
        # Not resolved: a link has the name that counts, its target may have any.
        for place in dict.fromkeys(place.absolute() for place in places):
            for member in _members(place, stack):
                name = member.where.rpartition("/")[2]
                first = members.setdefault(name, member)
                if first.where != member.where:
                    repeated.setdefault(name, [first.where]).append(member.where)
        yield Archive(places[0] if len(places) == 1 else Path("images"), members, repeated)


def sample_ids(archive: Archive) -> list[str]:
    """The samples whose files are named like ID_green.png or ID_green.jpg, in order; other files do not count.

    Raises:
        InputError: there is none.
    """
    matches = (_FILE.fullmatch(name) for name in archive.members)
    ids = sorted({match[1] for match in matches if match})
    if not ids:
        raise InputError(
            f"{archive.folder}: no images here: name the four files of a sample ID_{CHANNELS[0]}.png, "
            + ", ".join(f"_{channel}.png" for channel in CHANNELS[1:])
        )
    return ids


def batches(
    archive: Archive, ids: Sequence[str], size: int, batch_size: int
) -> Generator[tuple[list[str], Image], None, None]:
    """Decode samples a batch at a time, so that the memory needed does not depend on their number.

    From the first bad sample on, the others are only checked, so that a user meets all problems at once.

    Yields:
        The ids of a batch and its images, (B, size, size, 4) uint8.

    Raises:
        InputError: samples are incomplete or bad; the message counts them all.
    """

    def work(id_: str) -> Image | list[Problem]:
        pixels = np.empty((size, size, len(CHANNELS)), np.uint8)
        found = pack_sample(archive, id_, pixels)
        return found if isinstance(found, list) else pixels

    problems: list[Problem] = []
    ready: dict[str, Image] = {}
    with closing(in_threads(work, ids, os.cpu_count() or 1)) as results:
        for id_, result in zip(ids, track(results, "predicting", total=len(ids)), strict=True):
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


def _members(place: Path, stack: ExitStack) -> Iterator[Member]:
    """The files of a place, known by their whole paths."""
    if place.is_dir():
        archive = stack.enter_context(open_archive(place))
        for name, member in archive.members.items():
            for where in archive.repeated.get(name, [member.where]):
                yield member._replace(where=f"{place}/{where}")
    elif not place.exists():
        raise InputError(f"{place} is missing: name folders, zips or image files that are there")
    elif zips.is_zip(PurePosixPath(place.name)):
        for member in zips.members(place, PurePosixPath(place.name), stack):
            yield member._replace(where=f"{place.parent}/{member.where}")
    else:
        yield Loose(str(place), place)
