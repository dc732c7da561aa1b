"""Does a killed fetch end with the same images? ``python -m benchmarks.atlas [--images FOLDER]``.

A server on this machine serves the four JPEGs of each sample, and misbehaves on purpose: 404, 429 with Retry-After,
500, dropped connections, truncated bodies, pages of HTML, slow answers. The samples are made from those of the folder
(as the Human Protein Atlas serves them: ID_green.jpg and so on, and labels.csv; without a folder there are none) and
from simulated fields, by symmetries, shifts and exposure, so that no two are alike; those of the folder are also
served as they are. They are fetched once from a server that behaves well, and once from the other one, killed
(SIGKILL) after a random number of requests and started again. Both sources are packed.

The last line is JSON: ``different_bytes`` of the packed arrays, ``fetched_again`` (files that the server had to send
although they were stored before a kill), ``most_connections`` at one time and those ``allowed``, and what the run from
the server that behaves well took.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from benchmarks.atlas_server import AtlasServer, Manner, serving
from benchmarks.interleaved import report
from pipeline.core import params
from pipeline.core.labels import CHANNELS
from pipeline.simulation.competition import plan
from pipeline.simulation.render import render
from pipeline.sources import images
from pipeline.sources.archive import open_archive
from pipeline.sources.packing import IMAGES, pack
from pipeline.sources.samples import list_samples

ROOT = Path(__file__).parents[1]
SOURCE = "atlas"
COLOURS = {"green": (0, 1, 0), "blue": (0, 0, 1), "red": (1, 0, 0), "yellow": (1, 1, 0)}
"""Red, green and blue of each stain's colour."""
SHARES: Mapping[Manner, float] = {
    "busy": 0.004,
    "error": 0.03,
    "dropped": 0.03,
    "truncated": 0.03,
    "page": 0.02,
    "cut": 0.02,
    "slow": 0.03,
}
"""Share of first and second requests that are answered so."""
MISSING = 0.003
"""Share of files that the server does not have."""


class Atlas:
    """Samples that are made when they are asked for.

    Args:
        folder: JPEGs as the atlas serves them, or None.
        count: number of samples.
        side: of the made JPEGs, in pixels.
        fields: number of simulated fields that they are made from.
    """

    def __init__(self, folder: Path | None, count: int, side: int, fields: int) -> None:
        self._side = side
        self._verbatim: dict[str, bytes] = {}
        self._bases = self._simulated(fields)
        if folder is not None:
            for id_ in pd.read_csv(folder / "labels.csv")["Id"]:
                stains = {channel: (folder / f"{id_}_{channel}.jpg").read_bytes() for channel in CHANNELS}
                self._verbatim |= {self._path(f"{id_}_{channel}"): data for channel, data in stains.items()}
                planes = [images.shrink(images.decode(data, channel), side) for channel, data in stains.items()]
                self._bases.append(np.dstack(planes))
        made = [f"{20000 + number // 5}_{number % 5}_B{number % 9 + 1}_{number}" for number in range(count)]
        real = list(dict.fromkeys(path.strip("/").replace("/", "_").rpartition("_")[0] for path in self._verbatim))
        self.ids = (real + made)[:count]

    @cached_property
    def table(self) -> pd.DataFrame:
        """The list of samples, as the command takes it."""
        return pd.DataFrame({"Id": self.ids, "Target": [str(zlib.crc32(id_.encode()) % 28) for id_ in self.ids]})

    def file(self, path: str) -> bytes | None:
        """The JPEG at a path of the server; None where there is none."""
        if path in self._verbatim:
            return self._verbatim[path]
        if zlib.crc32(b"missing" + path.encode()) % 10_000 < MISSING * 10_000:
            return None
        id_, _, stain = path.strip("/").removesuffix(".jpg").replace("/", "_", 1).rpartition("_")
        number = int(id_.rpartition("_")[2])
        base = self._bases[number % len(self._bases)][..., CHANNELS.index(stain)]
        turned = np.rot90(base[:, ::-1] if number // 4 % 2 else base, number % 4)
        shifted = np.roll(turned, (number * 7 % self._side, number * 13 % self._side), (0, 1))
        exposed = np.clip(shifted * (0.7 + 0.6 * (number % 97) / 97), 0, 255)
        coloured = np.dstack([exposed * part for part in COLOURS[stain]]).astype(np.uint8)
        return cv2.imencode(".jpg", cv2.cvtColor(coloured, cv2.COLOR_RGB2BGR))[1].tobytes()

    def _simulated(self, fields: int) -> list[images.Image]:
        settings = params.load(ROOT / "params.yaml").sample.model_copy(update={"train": fields, "size": self._side})
        return [render(entry, settings) for entry in plan(settings) if entry.split == "train"]

    @staticmethod
    def _path(stem: str) -> str:
        return f"/{stem.replace('_', '/', 1)}.jpg"


def badly(path: str, number: int) -> Manner:
    """How the server that misbehaves answers a request for a path, the ``number``-th."""
    drawn = zlib.crc32(f"{path} {number}".encode()) / 2**32
    if number <= 2:
        for manner, share in SHARES.items():
            if drawn < share:
                return manner
            drawn -= share
    return "well"


def start(project: Path, server: AtlasServer, options: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start the command in a folder."""
    arguments = ["fetch", "atlas", "list.csv", "--source", SOURCE, "--url", server.address, *options]
    with (project / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline", *arguments],
            cwd=project,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
        )


def finish(project: Path, server: AtlasServer, options: Sequence[str]) -> None:
    """Run the command to its end.

    Raises:
        RuntimeError: it failed; the end of its log is in the message.
    """
    if start(project, server, options).wait():
        raise RuntimeError((project / "log").read_text()[-2000:])


def stored(folder: Path) -> set[str]:
    """Paths of the server's files that are stored in a source, in zips or waiting."""
    names = [path.name for path in (folder / ".resume").glob("*_*.*.png") if not path.name.startswith(".")]
    for path in folder.glob("*.zip"):
        with zipfile.ZipFile(path) as archive:
            names += archive.namelist()
    return {f"/{name.partition('.')[0].replace('_', '/', 1)}.jpg" for name in names}


def kill_at_random(
    project: Path, server: AtlasServer, options: Sequence[str], kills: int, total: int, seed: int
) -> tuple[int, int]:
    """Start the command and kill it, again and again, and then let it end.

    Args:
        project: the working folder.
        server: where the files are.
        options: of the command.
        kills: at most so many; fewer if a run ends before.
        total: number of requests that a whole run takes at least.
        seed: of the moments.

    Returns:
        The number of kills, and of files that were sent although they had been stored before a kill.
    """
    moments, again, done = random.Random(seed), 0, 0
    for _ in range(kills):
        before = stored(project / "data" / SOURCE)
        sent = server.served.copy()
        # Kills are after as many requests as remain to be made divided among them, at random between half and one and a
        # half of that.
        share = (total - len(before)) / (kills - done + 1)
        limit = server.requests.total() + max(int(share * moments.uniform(0.5, 1.5)), 1)
        process = start(project, server, options)
        while process.poll() is None and server.requests.total() < limit:
            time.sleep(0.001)
        ended = process.poll() is not None
        process.send_signal(signal.SIGKILL)
        process.wait()
        again += sum(server.served[path] > sent[path] for path in before)
        if ended:
            break
        done += 1
    before, sent = stored(project / "data" / SOURCE), server.served.copy()
    finish(project, server, options)
    return done, again + sum(server.served[path] > sent[path] for path in before)


def packed(project: Path, size: int) -> bytes:
    """The packed array of the source."""
    folder = project / "packed"
    folder.mkdir()
    with open_archive(project / "data" / SOURCE) as archive:
        samples, problems = list_samples(archive)
        pack(archive, samples, size, folder, problems)
    return (folder / IMAGES).read_bytes()


def run(atlas: Atlas, size: int, kills: int, options: Sequence[str], allowed: int, seed: int) -> dict[str, Any]:
    """Fetch quietly and with kills; see the module's docstring."""
    options = [*options, "--size", str(size), "--connections", str(allowed)]
    with tempfile.TemporaryDirectory() as folder:
        quiet, killed = Path(folder, "quiet"), Path(folder, "killed")
        for project in (quiet, killed):
            project.mkdir()
            atlas.table.to_csv(project / "list.csv", index=False)
        with serving(atlas.file, lambda *_: "well") as server:
            started = time.monotonic()
            finish(quiet, server, options)
            seconds = time.monotonic() - started
            requests, most = server.requests.total(), server.most
        sizes = [path.stat().st_size for path in (quiet / "data" / SOURCE).glob("*.zip")]
        with serving(atlas.file, badly) as server:
            done, again = kill_at_random(killed, server, options, kills, requests, seed)
            most, disturbed = max(most, server.most), server.requests.total()
        one, two = packed(quiet, size), packed(killed, size)
        different = abs(len(one) - len(two)) + int(
            np.count_nonzero(np.frombuffer(one, np.uint8)[: len(two)] != np.frombuffer(two, np.uint8)[: len(one)])
        )
        lacking = quiet / "logs" / f"fetch-{SOURCE}-missing.csv"
        missing = len(pd.read_csv(lacking)) if lacking.exists() else 0
    return {
        "samples": len(atlas.ids),
        "missing": missing,
        "kills": done,
        "different_bytes": different,
        "fetched_again": again,
        "most_connections": most,
        "allowed": allowed,
        "requests": requests,
        "requests_disturbed": disturbed,
        "seconds": round(seconds, 1),
        "zips": len(sizes),
        "stored_mb": round(sum(sizes) / 1e6, 1),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder with JPEGs as the atlas serves them, and labels.csv")
    parser.add_argument("--samples", type=int, default=2000, help="(%(default)s)")
    parser.add_argument("--side", type=int, default=512, help="of the made JPEGs, in pixels (%(default)s)")
    parser.add_argument("--size", type=int, default=256, help="of the stored images, in pixels (%(default)s)")
    parser.add_argument("--kills", type=int, default=10, help="(%(default)s)")
    parser.add_argument("--fields", type=int, default=40, help="simulated fields to make samples from (%(default)s)")
    parser.add_argument("--connections", type=int, default=8, help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills (%(default)s)")
    parsed = parser.parse_args()
    atlas = Atlas(parsed.images, parsed.samples, parsed.side, parsed.fields)
    options = ["--rate", "1000", "--pause", "0.2"]
    figures = run(atlas, parsed.size, parsed.kills, options, parsed.connections, parsed.seed)
    report(pd.DataFrame([figures]), figures)


if __name__ == "__main__":
    main()
