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

UNREAD = (".7z", ".rar", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".001", ".z01")
"""Endings of archives of other kinds than zip, and of the first part of a split one."""
UNFINISHED = (".crdownload", ".part", ".download", ".filepart")
"""Endings that browsers and the like give to a file until it is complete."""
NAMED = 3
"""Number of files that a message names."""


class Loose(NamedTuple):
    """A file that is not in a zip."""

    where: str
    """Path inside the source's folder."""
    path: Path

    def read(self, limit: int = zips.MAX_BYTES) -> bytes:
        """Read the file.

        Raises:
            InputError: the file cannot be read or is too large; the message does not name the file.
        """
        try:
            if not stat.S_ISREG(self.path.stat().st_mode):
                raise InputError("not a regular file: remove it")  # reading a pipe could block forever
            with self.path.open("rb") as file:
                data = file.read(limit + 1)
        except OSError as error:
            raise InputError(f"cannot be read ({error.strerror}): copy it again") from None
        if len(data) > limit:
            raise InputError(f"larger than {limit >> 20} MiB, unlike any file of a competition: remove it")
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
    spelled: Mapping[str, str]
    """Names by their plain spelling, where that is another one: a1_green.png of a1_Green.PNG."""
    advice: str = ""
    """What to do about files that may contain others but are not read, as part of a message; empty without any."""


@contextmanager
def open_archive(folder: Path) -> Iterator[Archive]:
    """Find all files of a source; only the directories of its zips are read.

    If there is a ``competition.zip``, other zips are ignored. Otherwise all zips are read, as in Kaggle's older layout
    with ``train.zip`` and ``test.zip`` beside the tables. Members can be read from several threads until the block
    ends.

    Raises:
        InputError: the folder is missing, or one of its zips is damaged, unsafe or nested too deeply.
    """
    if folder.is_symlink() and not folder.exists():
        raise InputError(
            f"{folder} is a link to {folder.readlink()}, which does not exist: mount its disk or correct the link"
        )
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: replace it by a folder that contains the competition")
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
        yield Archive(folder, members, repeated, spellings(members, repeated), _advice(members))


def plain(name: str) -> str:
    """Name of a stain's file with its channel and ending in lower case; the id is left as it is."""
    id_, mark, rest = name.rpartition("_")
    return id_ + mark + rest.lower() if mark else name


def spellings(members: Mapping[str, Member], repeated: dict[str, list[str]]) -> dict[str, str]:
    """Names by their plain spelling, where that is another one; two names of one spelling are added to ``repeated``."""
    found: dict[str, str] = {}
    for name, member in members.items():
        spelling = plain(name)
        if spelling != name and (first := found.setdefault(spelling, name)) != name:
            repeated.setdefault(first, [members[first].where]).append(member.where)
    return found


def _advice(members: Mapping[str, Member]) -> str:
    """See ``Archive.advice``."""
    advice = []
    for endings, what in (
        (UNREAD, "unpack {}: archives other than zips are not read"),
        (UNFINISHED, "unfinished downloads: {}"),
    ):
        if named := sorted(member.where for name, member in members.items() if name.lower().endswith(endings)):
            advice.append(what.format(", ".join(named[:NAMED]) + (", ..." if len(named) > NAMED else "")))
    return "; ".join(advice)


def _files(folder: Path, stack: ExitStack) -> Iterator[Member]:
    """All files in the folder and its subfolders; a zip yields the files in it."""
    has_preferred = (folder / PREFERRED).exists()
    for path in stray_files.walk(folder):
        name = PurePosixPath(path.relative_to(folder).as_posix())
        if not zips.is_zip(name):
            yield Loose(str(name), path)
        elif not has_preferred or str(name) == PREFERRED:
            if path.with_suffix(".z01").exists():
                raise InputError(
                    f"{path} is a part of a split archive: join the parts (zip -s 0 {path.name} --out whole.zip) or "
                    "unpack them, and remove the parts"
                )
            yield from zips.members(path, name, stack)
