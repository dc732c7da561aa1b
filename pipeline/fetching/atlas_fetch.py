"""Fetch the images of a list of samples from the Human Protein Atlas into a source.

Each connection takes the next sample of the list and fetches its four stains one after the other. What cannot be had is
written down and does not stop the others; a server that has nothing at all, or no longer answers, does.
"""

import asyncio
import csv
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.core.errors import InputError
from pipeline.core.paths import replacing
from pipeline.core.progress import count
from pipeline.fetching.atlas_list import AtlasSample
from pipeline.fetching.atlas_store import ZIPPED, AtlasStore
from pipeline.fetching.http_files import Downloads, Failure, open_downloads
from pipeline.sources.packing import size_problems
from pipeline.sources.samples import GROUPS, TRAIN

HOPELESS = 100
"""Files in a row that could not be had, after which a run ends. What the server lacks counts until one was there."""
AT_FIRST = 16
"""The same while nothing has come yet, unless the server lacks the files: most likely there is no connection."""


@dataclass(frozen=True)
class Politeness:
    """How a server is used.

    Attributes:
        connections: at most so many at a time.
        rate: requests per second, of all connections together.
        pause: before a file is tried a second time, in seconds; it doubles with each attempt.
    """

    connections: int
    rate: float
    pause: float


@dataclass(frozen=True)
class Lacking:
    """An image that could not be had."""

    id: str
    channel: str
    reason: str
    address: str


@dataclass
class AtlasRun:
    """One run of the command: what has been stored, what could not be had, and whether the server is still worth it."""

    samples: Sequence[AtlasSample]
    store: AtlasStore
    template: str
    lacking: list[Lacking] = field(default_factory=list)
    transferred: int = 0
    _in_a_row: int = 0
    _ever: bool = False

    async def fetch(self, politeness: Politeness) -> None:
        """Fetch all samples that are not in zips yet, and zip them.

        Raises:
            InputError: the server has nothing, does not answer any more, or asks to be left alone.
        """
        asyncio.get_running_loop().set_exception_handler(_report_unraised)
        self._ever = bool(self.store.zipped)
        left = [sample for sample in self.samples if sample.id not in self.store.zipped]
        parts = [left[start : start + ZIPPED] for start in range(0, len(left), ZIPPED)]
        unfinished = {number: len(part) for number, part in enumerate(parts)}
        queue = deque((number, sample) for number, part in enumerate(parts) for sample in part)
        zipping = asyncio.Lock()  # numbers of zips are given one at a time

        with count("fetching", total=len(self.samples), done=len(self.samples) - len(left)) as bar:

            async def work(downloads: Downloads) -> None:
                while queue:
                    number, sample = queue.popleft()
                    await self._sample(downloads, sample)
                    bar.set_description_str(f"fetching, {self.transferred / 1e6:,.0f} MB", refresh=False)
                    bar.update()
                    unfinished[number] -= 1
                    if not unfinished[number]:
                        async with zipping:
                            await asyncio.to_thread(self.store.write_zip, self._complete(parts[number]))

            async with (
                open_downloads(politeness.connections, politeness.rate, politeness.pause) as downloads,
                asyncio.TaskGroup() as workers,
            ):
                for _ in range(politeness.connections):
                    workers.create_task(work(downloads))

    async def _sample(self, downloads: Downloads, sample: AtlasSample) -> None:
        for channel, address in sample.addresses(self.template).items():
            if self.store.has(sample.id, channel):
                continue
            found = await downloads.get(address, partial(self.store.add, sample.id, channel))
            if isinstance(found, Failure):
                self._failed(Lacking(sample.id, channel, found.reason, address), missing=found.missing)
                return  # a sample with three stains is of no use, so the others are not asked for
            self.transferred += found.size
            self._ever, self._in_a_row = True, 0
        for problem in size_problems(sample.id, self.store.sides(sample.id)):
            self.lacking.append(Lacking(sample.id, "all", f"channels of different sizes: {problem.where}", ""))
            self.store.discard(sample.id)

    def _failed(self, lacking: Lacking, *, missing: bool) -> None:
        self.lacking.append(lacking)
        self._in_a_row += not (missing and self._ever)
        if self._in_a_row >= (HOPELESS if self.transferred or missing else AT_FIRST):
            raise InputError(
                f"the last {self._in_a_row} files could not be had; {lacking.address}: {lacking.reason}: check the "
                "address (--url) and the connection, then run the same command again: what was fetched is kept"
            )

    def _complete(self, part: Sequence[AtlasSample]) -> list[str]:
        lacking = {one.id for one in self.lacking}
        return [sample.id for sample in part if sample.id not in lacking]


def _report_unraised(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Print what asyncio has not raised. A signal that comes within a task is raised both in it and out of the loop."""
    if not isinstance(context.get("exception"), KeyboardInterrupt):
        loop.default_exception_handler(context)


def fetch_atlas(run: AtlasRun, politeness: Politeness, report: Path) -> int:
    """Fetch the samples, write the source's tables, and list what could not be had.

    Args:
        run: the samples, and where to.
        politeness: how the server is used.
        report: the list to write: id, channel, reason, address.

    Returns:
        The number of samples that the source has.

    Raises:
        InputError: the server has nothing or does not answer any more, the disk is too small, or nothing was fetched.
    """
    waiting = [sample for sample in run.samples if sample.id not in run.store.zipped]
    run.store.check_space(len(waiting))
    try:
        asyncio.run(run.fetch(politeness))
    except BaseExceptionGroup as several:
        # Of all connections; each has ended for the same reason, or because another one has.
        raise _first(several) from None
    write_lacking(run.lacking, report)
    stored = [sample for sample in run.samples if sample.id in run.store.zipped]
    if not stored:
        first = run.lacking[0]
        raise InputError(
            f"none of the {len(run.samples):,} samples could be fetched ({first.address or first.id}: {first.reason}): "
            f"check the list, the address (--url) and the connection; all reasons are in {report}"
        )
    for name, rows in tables(stored).items():
        _write(run.store.folder / name, rows)
    run.store.close()
    return len(stored)


def check_tables(folder: Path, samples: Sequence[AtlasSample]) -> None:
    """Check that the tables of the source, which will be written again, have no rows that the list does not give.

    Raises:
        InputError: one has, so it is somebody's own, or of another list.
    """
    for name, rows in tables(samples).items():
        path = folder / name
        if not path.exists():
            continue
        try:
            with path.open(encoding="utf-8", newline="") as file:
                other = {tuple(row) for row in csv.reader(file)} - set(rows)
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputError(
                f"{path} is no table of an earlier run ({error}): fetch into another folder (--source), or move the "
                "file away"
            ) from None
        if other:
            raise InputError(
                f"{path} has {len(other):,} rows that the list does not give, such as {','.join(min(other))!r}: fetch "
                "into another folder (--source), or move the file away"
            )


def tables(samples: Sequence[AtlasSample]) -> dict[str, list[tuple[str, ...]]]:
    """The rows of train.csv and groups.csv of a source, whose groups are the antibodies; groups.csv is to be first."""
    return {
        GROUPS: [("id", "antibody"), *((sample.id, sample.antibody) for sample in samples)],
        TRAIN: [("Id", "Target"), *((sample.id, sample.target) for sample in samples)],
    }


def write_lacking(lacking: Sequence[Lacking], path: Path) -> None:
    """Write the list of what could not be had, or remove that of an earlier run if there is nothing."""
    if not lacking:
        path.unlink(missing_ok=True)
        return
    rows = sorted((one.id, one.channel, one.reason, one.address) for one in lacking)
    _write(path, [("id", "channel", "reason", "address"), *rows])


def _write(path: Path, rows: Sequence[tuple[str, ...]]) -> None:
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    one = group.exceptions[0]
    return _first(one) if isinstance(one, BaseExceptionGroup) else one
