"""Which files belong to a sample, whose id a table may write in other capitals or with the ending of a file."""

import re
from collections import defaultdict
from collections.abc import Iterable

from pipeline.core.labels import CHANNELS
from pipeline.sources.archive import Archive

ENDINGS = (".png", ".jpg", ".tif", ".jpeg", ".tiff", ".ome.tif", ".ome.tiff")
"""Endings of files of one stain, in capitals or not. If a sample has several, the first one counts."""
TIFF_ENDINGS = tuple(ending for ending in ENDINGS if "tif" in ending)
"""Endings of files of all stains."""

_ANY = "|".join(re.escape(ending) for ending in sorted(ENDINGS, key=len, reverse=True))
_STAIN_FILE = re.compile(rf"(.+)_(?:{'|'.join(CHANNELS)})(?:{_ANY})", re.IGNORECASE)
_SAMPLE_FILE = re.compile(rf"(.+?)(?:{'|'.join(map(re.escape, TIFF_ENDINGS[::-1]))})", re.IGNORECASE)
_ID_ENDING = re.compile(rf"(?:_(?:{'|'.join(CHANNELS)}))?(?:{_ANY})$", re.IGNORECASE)


def stems(archive: Archive, ids: Iterable[str], *, one_file: bool) -> list[str]:
    """What the names of each sample's files begin with, in front of the channel or, with one file, of the ending.

    That is the id, if there are such files. Otherwise it is their spelling where it differs in capitals alone, and
    where the id is the name of a file, with its channel or not (A1.png and A1_green.png for a1_green.png and so on).
    An id that fits no files, or files of several spellings, is left as it is.

    Args:
        archive: the source's files.
        ids: of the samples.
        one_file: whether a sample is one file, and not one for each channel.
    """
    pattern = _SAMPLE_FILE if one_file else _STAIN_FILE
    spelled = defaultdict[str, set[str]](set)
    for name in archive.members:
        if match := pattern.fullmatch(name):
            spelled[match[1].lower()].add(match[1])
    return [_stem(id_, spelled) for id_ in ids]


def stain_file(archive: Archive, stem: str) -> str:
    """Name of the file with the first of `ENDINGS` that exists, otherwise of a PNG; ``stem`` includes the channel."""
    names = [stem + ending for ending in ENDINGS]
    plain = next((name for name in names if name in archive.members), None)
    return plain or next((archive.spelled[name] for name in names if name in archive.spelled), names[0])


def sample_file(archive: Archive, stem: str) -> str:
    """Name of the file with the first of `TIFF_ENDINGS`, in capitals or not, that exists, otherwise of the first."""
    names = [stem + spelling for ending in TIFF_ENDINGS for spelling in (ending, ending.upper())]
    return next((name for name in names if name in archive.members), names[0])


def _stem(id_: str, spelled: dict[str, set[str]]) -> str:
    for candidate in (id_, _ID_ENDING.sub("", id_)):
        found = spelled.get(candidate.lower(), set())
        if candidate in found:
            return candidate
        if len(found) == 1:
            return next(iter(found))
    return id_
