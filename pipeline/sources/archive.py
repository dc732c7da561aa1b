"""Find and read the files of a source, whether they are loose, in zips, or in zips inside a zip.

Files are identified by their name without folders, because ids are unique. The order of members, a common top folder,
and whether ``train`` is a folder or a zip make no difference.
"""

import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from pipeline.core import stray_files
from pipeline.core.errors import InputError
from pipeline.sources import zips

PREFERRED = "competition.zip"


class Loose(NamedTuple):
    """A file that is not in a zip."""

    where: str
    """Path inside the source's folder."""
    path: Path

    def read(self) -> bytes:
        """Read the file.

        Raises:
            InputError: the file cannot be read or is too large; the message does not name the file.
        """
        try:
            if not stat.S_ISREG(self.path.stat().st_mode):
                raise InputError("not a regular file: remove it")  # reading a pipe could block forever
            with self.path.open("rb") as file:
                data = file.read(zips.MAX_BYTES + 1)
        except OSError as error:
            raise InputError(f"cannot be read ({error.strerror}): copy it again") from None
        if len(data) > zips.MAX_BYTES:
            raise InputError(f"larger than {zips.MAX_BYTES >> 20} MiB, unlike any file of a competition: remove it")
        return data

    def stamp(self) -> str:
        """Return a text that changes whenever the contents do, without reading them."""
        try:
            status = self.path.stat()
        except OSError:
            return ""
        return f"{status.st_size} {status.st_mtime_ns}"


Member = Loose | zips.Stored


@dataclass(frozen=True)
class Archive:
    """The files of a source, by their name without folders."""

    folder: Path
    members: Mapping[str, Member]
    repeated: Mapping[str, Sequence[str]]
    """All locations of each name that occurs more than once."""


@contextmanager
def open_archive(folder: Path) -> Iterator[Archive]:
    """Find all files of a source; only the directories of its zips are read.

    If there is a ``competition.zip``, other zips are ignored. Otherwise all zips are read, as in Kaggle's older layout
    with ``train.zip`` and ``test.zip`` beside the tables. Members can be read from several threads until the block
    ends.

    Raises:
        InputError: the folder is missing, or one of its zips is damaged, unsafe or nested too deeply.
    """
    if not folder.is_dir():
        raise InputError(
            f"{folder} is missing: create this folder and place the competition in it, as {PREFERRED}, "
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
    """All files in the folder and its subfolders; a zip yields the files in it."""
    has_preferred = (folder / PREFERRED).exists()
    for path in stray_files.walk(folder):
        name = PurePosixPath(path.relative_to(folder).as_posix())
        if not zips.is_zip(name):
            yield Loose(str(name), path)
        elif not has_preferred or str(name) == PREFERRED:
            yield from zips.members(path, name, stack)
