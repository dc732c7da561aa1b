"""A source's files wherever they stand: loose, in zips, in zips inside a zip.

Files are known by their name alone, as ids are unique: the order of members, a common top folder, and whether
``train/`` is a folder or a zip make no difference.
"""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from pipeline.core.errors import InputError
from pipeline.sources import zips

PREFERRED = "competition.zip"


class Loose(NamedTuple):
    """A file of its own."""

    where: str
    """Path inside the source's folder."""
    path: Path

    def read(self) -> bytes:
        """Read the bytes.

        Raises:
            InputError: they cannot be read, or are too many; the caller knows the name.
        """
        try:
            if not stat.S_ISREG(self.path.stat().st_mode):
                raise InputError("not a file: take it away")  # a pipe would be waited for without end
            with self.path.open("rb") as file:
                data = file.read(zips.MAX_BYTES + 1)
        except OSError as error:
            raise InputError(f"cannot be read ({error.strerror}): place it again") from None
        if len(data) > zips.MAX_BYTES:
            raise InputError(f"holds more than {zips.MAX_BYTES >> 20} MiB, as no file of a competition does")
        return data

    def stamp(self) -> str:
        """Name what changes whenever the bytes do, without reading them."""
        try:
            status = self.path.stat()
        except OSError:
            return ""
        return f"{status.st_size} {status.st_mtime_ns}"


Member = Loose | zips.Stored


@dataclass(frozen=True)
class Archive:
    """The files of one source, by their name without folders."""

    folder: Path
    members: Mapping[str, Member]
    repeated: Mapping[str, Sequence[str]]
    """Every place of a name that stands in more than one."""


@contextmanager
def open_archive(folder: Path) -> Iterator[Archive]:
    """Find all files of a source; of its zips nothing but the directories is read yet.

    Of several zips ``competition.zip`` is the source and the others are left alone; without it all count,
    as in Kaggle's older form of ``train.zip`` and ``test.zip`` beside the tables. Members can be read, from
    several threads, until the block ends.

    Raises:
        InputError: the folder is missing, or one of its zips is damaged, unsafe or nested too deeply.
    """
    if not folder.is_dir():
        raise InputError(
            f"{folder} is missing: make this folder and put the competition there, as {PREFERRED}, "
            "as train.zip and test.zip beside the tables, or unpacked"
        )
    members: dict[str, Member] = {}
    repeated: dict[str, list[str]] = {}
    with ExitStack() as stack:
        for member in _files(folder, stack):
            name = member.where.rpartition("/")[2]
            first = members.setdefault(name, member)
            if first is not member:
                repeated.setdefault(name, [first.where]).append(member.where)
        yield Archive(folder, members, repeated)


def _files(folder: Path, stack: ExitStack) -> Iterator[Member]:
    """Every file below the folder, a zip as the files in it."""
    only = (folder / PREFERRED).exists()
    for path in _walk(folder):
        name = PurePosixPath(path.relative_to(folder).as_posix())
        if not zips.is_zip(name):
            yield Loose(str(name), path)
        elif not only or str(name) == PREFERRED:
            yield from zips.members(path, name, stack)


def _walk(folder: Path) -> Iterator[Path]:
    seen: set[tuple[int, int]] = set()
    # Links are followed because a large archive or its unpacked folders may lie on another disk.
    for root, folders, names in os.walk(folder, followlinks=True):
        status = os.stat(root)  # noqa: PTH116
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()  # a link back up would be followed without end
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(root, name) for name in sorted(names))
