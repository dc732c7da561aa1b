"""Reading new images, which belong to no source: finding, checking and decoding them in batches, as packing does."""

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

# Names with a leading dot are excluded: macOS adds such a companion to every file it copies.
_FILE = re.compile(rf"([^.].*)_(?:{'|'.join(CHANNELS)})\.(?:png|jpg)")


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
            for member in _members(place, stack):
                name = member.where.rpartition("/")[2]
                first = members.setdefault(name, member)
                if first.where != member.where:
                    repeated.setdefault(name, [first.where]).append(member.where)
        yield Archive(places[0] if len(places) == 1 else Path("images"), members, repeated)


def sample_ids(archive: Archive) -> list[str]:
    """The ids of the samples, sorted: ID of files named like ID_green.png or ID_green.jpg. Other files are ignored.

    Raises:
        InputError: there are no such files.
    """
    matches = (_FILE.fullmatch(name) for name in archive.members)
    ids = sorted({match[1] for match in matches if match})
    if not ids:
        raise InputError(
            f"{archive.folder}: no images found: name the four files of a sample ID_{CHANNELS[0]}.png, "
            + ", ".join(f"_{channel}.png" for channel in CHANNELS[1:])
        )
    return ids


def batches(
    archive: Archive, ids: Sequence[str], size: int, batch_size: int
) -> Generator[tuple[list[str], Image], None, None]:
    """Decode samples batch by batch, so that the memory needed does not depend on their number.

    After the first invalid sample, the others are only checked, so that all problems are reported together.

    Yields:
        The ids of a batch and its images, (B, size, size, 4) uint8.

    Raises:
        InputError: samples are incomplete or invalid; the message reports all of them.
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
