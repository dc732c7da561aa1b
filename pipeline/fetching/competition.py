"""Fetch the competition's archive into a source, and check it before it gets its name."""

import shutil
import struct
import time
import zipfile
import zlib
from pathlib import Path

from pipeline.core.errors import InputError, Problem, raise_problems
from pipeline.core.labels import CHANNELS
from pipeline.core.paths import RESUME
from pipeline.core.progress import say, track
from pipeline.fetching.kaggle_client import KaggleAccount
from pipeline.sources.archive import PREFERRED, Archive, open_archive
from pipeline.sources.file_names import stain_file
from pipeline.sources.samples import TEST, TRAIN, list_samples
from pipeline.sources.zips import is_zip

CHUNK = 2**20

_FAULTS = (zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, RuntimeError, ValueError)
"""What zipfile raises for damaged zips, and for those of kinds that it does not know."""


def check_placed(folder: Path) -> str:
    """Check a competition that is in the folder already; returns what it is, or an empty text if there is none.

    Raises:
        InputError: it is not whole.
    """
    placed = competition_files(folder) if folder.is_dir() else []
    if not placed:
        return ""
    say(f"{folder} has files already, which are checked instead of fetching others")
    outcome = "nothing was fetched: move the files away, or fetch into another folder (--source)"
    return f"{folder}: {checked(folder, [path for path in placed if is_zip(path)], outcome)}, as it was"


def fetch(folder: Path, account: KaggleAccount) -> str:
    """Fetch the archive into a folder that has none; returns what it is.

    Raises:
        InputError: the archive cannot be fetched, or is not a whole competition.
    """
    waiting = folder / RESUME.name
    archive = waiting / PREFERRED
    account.download(archive, time.sleep)
    try:
        found = checked(
            waiting, [archive], "the archive was removed: run the same command again, which fetches it anew"
        )
    except InputError:
        archive.unlink()
        raise
    if (folder / PREFERRED).exists():
        raise InputError(f"{folder / PREFERRED} has appeared meanwhile: the archive that was fetched is {archive}")
    archive.rename(folder / PREFERRED)
    shutil.rmtree(waiting)
    return f"{folder / PREFERRED}: {found}"


def competition_files(folder: Path) -> list[Path]:
    """What the folder has of a competition: zips, folders and tables that come with the archive."""
    visible = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    return [path for path in visible if path.is_dir() or is_zip(path) or path.name.lower() in (TRAIN, TEST)]


def checked(folder: Path, archives: list[Path], outcome: str) -> str:
    """Check every member of the zips by its CRC-32, and that each id of the tables has its four images.

    Returns:
        The numbers of samples.

    Raises:
        InputError: something is damaged or missing; the message ends with ``outcome``.
    """
    raise_problems(folder, [problem for path in archives for problem in damaged(path)], outcome)
    with open_archive(folder) as archive:
        try:
            samples, problems = list_samples(archive)
        except InputError as error:
            raise InputError(f"{error}; {outcome}") from None
        problems += missing(archive, samples["files"].tolist())
    raise_problems(folder, problems, outcome)
    counts = samples["split"].value_counts()
    return f"{counts.get('train', 0):,} training and {counts.get('test', 0):,} test samples, complete and undamaged"


def damaged(path: Path) -> list[Problem]:
    """The members of a zip whose content does not have their CRC-32."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [
                Problem(info.filename, f"files of {path.name} are damaged")
                for info in track(archive.infolist(), "checking", unit="files")
                if not _intact(archive, info)
            ]
    except _FAULTS as error:
        return [Problem(path.name, f"not a complete zip archive ({error})")]


def missing(archive: Archive, stems: list[str]) -> list[Problem]:
    """The images that samples lack; ``stems`` are the ids as the names of their files write them."""
    names = [f"{stem}_{channel}" for stem in stems for channel in CHANNELS]
    lacking = [name for name in names if stain_file(archive, name) not in archive.members]
    return [Problem(name, f"images are missing of {len(stems):,} samples") for name in lacking]


def _intact(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bool:
    try:
        with archive.open(info) as member:
            while member.read(CHUNK):
                pass
    except _FAULTS:
        return False
    return True
