"""The files of a folder, without what desktops, editors, sync programs and file systems leave behind.

.dvcignore lists the same patterns, so that such files make no stage stale; a test compares the two lists.
"""

import os
import re
from collections.abc import Iterator
from fnmatch import translate
from pathlib import Path, PurePath
from typing import NoReturn

from pipeline.core.errors import InputError

FOLDERS = (
    # macOS, Windows
    ".AppleDouble",
    ".Spotlight-V100",
    ".TemporaryItems",
    ".Trashes",
    ".fseventsd",
    "__MACOSX",
    "$RECYCLE.BIN",
    "System Volume Information",
    # Linux desktops, network storage (Synology, QNAP, NetApp), file systems
    ".Trash-*",
    "@eaDir",
    "#recycle",
    "@Recycle",
    "@Recently-Snapshot",
    ".snapshot",
    "~snapshot",
    "lost+found",
    # sync programs, editors
    ".dropbox.cache",
    ".sync",
    ".stfolder",
    ".stversions",
    ".idea",
    ".vscode",
    ".history",
    ".ipynb_checkpoints",
)
"""Patterns of folders."""

FILES = (
    # macOS, Windows
    ".DS_Store",
    "._*",
    ".localized",
    "Icon[!A-Za-z0-9.]",  # ends in a carriage return
    "[Tt]humbs.db",
    "ehthumbs.db",
    "[Dd]esktop.ini",
    "*:Zone.Identifier",
    # Linux desktops, network storage, file systems
    ".directory",
    ".nfs*",
    ".fuse_hidden*",
    ".goutputstream-*",
    "*@SynoEAStream",
    "*@SynoResource",
    # sync programs, unfinished downloads
    ".dropbox",
    ".dropbox.attr",
    ".syncthing.*",
    "~syncthing~*",
    "*.sync-conflict-*",
    "* conflicted copy *",
    "*.crdownload",
    "*.part",
    # editors, office programs
    ".~lock.*",
    "~$*",
    "*~",
    ".#*",
    "#*#",
    "*.swp",
    "*.swo",
    "*.swx",
)
"""Patterns of files."""

_FOLDER, _FILE = (re.compile("|".join(map(translate, patterns))) for patterns in (FOLDERS, FILES))


def walk(folder: Path) -> Iterator[Path]:
    """All files below a folder, in a fixed order, except those in hidden folders and in folders of other programs.

    Symbolic links are followed, because a large archive or its unpacked folders may be on another disk.

    Raises:
        InputError: a folder cannot be listed.
    """
    seen: set[tuple[int, int]] = set()
    for root, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        status = os.stat(root)  # noqa: PTH116
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()  # a link to a parent folder would be followed forever
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith(".") and not is_stray_folder(name))
        yield from (Path(root, name) for name in sorted(names))


def is_stray(path: PurePath) -> bool:
    """Whether a file is left behind by another program, by its name or by the folders that it is in."""
    return _FILE.match(path.name) is not None or any(map(is_stray_folder, path.parts[:-1]))


def is_stray_folder(name: str) -> bool:
    """Whether a folder of this name is another program's."""
    return _FOLDER.match(name) is not None


def _refuse(error: OSError) -> NoReturn:
    # Without its files, all that the folder contains would be reported as missing.
    raise InputError(f"{error.filename}: this folder cannot be listed ({error.strerror}): correct its permissions")
