"""Images on their way into a source: one file each until a thousand samples are together, then a zip.

All that is not finished is in ``.resume/`` of the source's folder, which ``pack`` and DVC do not see. A file gets its
name when it is complete, so an image that has its name is never fetched again, however the program ends.
"""

import os
import re
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS
from pipeline.core.paths import RESUME, replacing
from pipeline.sources import images

ZIPPED = 1000
"""Samples per zip."""

BYTES_PER_PIXEL = 0.5
"""Of a stored image, more than real ones need (measured: docs/measurements.md); for the check of disk space."""

LOCK = "lock"
_ZIP = re.compile(r"atlas-(\d+)px-(\d+)\.zip")
_WAITING = re.compile(r"(.+)_([a-z]+)\.(\d+)\.png")


class AtlasStore:
    """The images of a source, stored as grayscale PNGs of at most ``size`` pixels a side.

    Raises:
        InputError: the folder has images of another size, or a damaged zip.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = folder, size
        self.waiting = folder / RESUME.name
        self.waiting.mkdir(parents=True, exist_ok=True)
        self.zipped = self._read_zips()
        """Ids of samples that are in zips."""
        self._sides = self._read_waiting()

    def has(self, id_: str, channel: str) -> bool:
        """Whether an image is stored, in a zip or waiting."""
        return id_ in self.zipped or (id_, channel) in self._sides

    def add(self, id_: str, channel: str, data: bytes) -> None:
        """Decode the JPEG of a stain, take its own channel, shrink it by area, and store it. Thread-safe.

        Raises:
            InputError: the data is no such image; the message does not name it.
        """
        image = images.decode(data, channel)
        side = len(image)
        shrunk = images.shrink(image, self.size) if side > self.size else image
        path = self._path(id_, channel, side)
        with replacing(path) as temporary:
            temporary.write_bytes(images.encode_png(shrunk))
        self._sides[id_, channel] = side

    def sides(self, id_: str) -> dict[str, int]:
        """Side of the original of each image of a sample that waits, in pixels, by channel."""
        return {channel: self._sides[id_, channel] for channel in CHANNELS if (id_, channel) in self._sides}

    def discard(self, id_: str) -> None:
        """Remove the waiting images of a sample."""
        for channel, side in self.sides(id_).items():
            self._path(id_, channel, side).unlink(missing_ok=True)
            del self._sides[id_, channel]

    def write_zip(self, ids: Sequence[str]) -> None:
        """Move the images of some samples into a zip, which appears when it is complete."""
        if not ids:
            return
        number = 1 + max((int(found[2]) for found in self._zips().values()), default=0)
        path = self.folder / f"atlas-{self.size}px-{number:04}.zip"
        partial = self.waiting / "zip.partial"
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            for id_ in ids:
                for channel, side in self.sides(id_).items():
                    # The date is that of every ZipInfo without one, so the same images give the same zip.
                    archive.writestr(
                        zipfile.ZipInfo(f"{id_}_{channel}.png"), self._path(id_, channel, side).read_bytes()
                    )
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.rename(path)
        self.zipped.update(ids)
        for id_ in ids:
            self.discard(id_)

    def check_space(self, samples: int) -> None:
        """Check that the disk has room for so many further samples.

        Raises:
            InputError: it has not.
        """
        needed = int((samples + min(samples, ZIPPED)) * len(CHANNELS) * self.size**2 * BYTES_PER_PIXEL)
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise InputError(
                f"{self.folder}: {samples:,} samples need about {needed / 1e9:.1f} GB at {self.size} px, but only "
                f"{free / 1e9:.1f} GB are free: make room, put a link to a folder on a larger disk in its place, or "
                "lower --size"
            )

    def close(self) -> None:
        """Remove the folder of what waits, if nothing does."""
        if not self._sides:
            shutil.rmtree(self.waiting, ignore_errors=True)

    def _zips(self) -> dict[Path, "re.Match[str]"]:
        found = {path: _ZIP.fullmatch(path.name) for path in sorted(self.folder.iterdir())}
        return {path: match for path, match in found.items() if match}

    def _read_zips(self) -> set[str]:
        ids = set()
        for path, match in self._zips().items():
            if int(match[1]) != self.size:
                raise InputError(
                    f"{path} has images of {match[1]} px: fetch those of {self.size} px into another folder (--source)"
                )
            try:
                with zipfile.ZipFile(path) as archive:
                    ids |= {name.rpartition("_")[0] for name in archive.namelist()}
            except (zipfile.BadZipFile, OSError) as error:
                raise InputError(f"{path} is damaged ({error}): remove it, and its samples are fetched again") from None
        return ids

    def _read_waiting(self) -> dict[tuple[str, str], int]:
        """Sides of the images that wait. What is no whole image any more, after a power failure, is removed."""
        sides = {}
        for path in sorted(self.waiting.iterdir()):
            found = _WAITING.fullmatch(path.name)
            if found is None:
                if path.name != LOCK and path.is_file():
                    path.unlink()
            elif found[1] in self.zipped or not self._whole(path, int(found[3])):
                path.unlink()
            else:
                sides[found[1], found[2]] = int(found[3])
        return sides

    def _whole(self, path: Path, side: int) -> bool:
        try:
            image = images.decode(path.read_bytes(), CHANNELS[0])
        except InputError:
            return False
        return len(image) == min(side, self.size)

    def _path(self, id_: str, channel: str, side: int) -> Path:
        return self.waiting / f"{id_}_{channel}.{side}.png"
