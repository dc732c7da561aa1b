"""Time from an upload to its result on the page: ``python -m benchmarks.app``, in the folder of a finished run.

Serves the run as ``python -m pipeline app`` does and sends test samples of the packed source, four PNGs each, by HTTP.
The first upload after the start is timed apart. Then it counts how often test images are cautioned of: as they are,
and changed (enlarged, blurred, darker, a channel empty), which the cautions should notice.

The last line is JSON: ``first_s`` is the time of the first upload in seconds, ``median_s`` and ``slowest_s`` those of
the others, ``cpu_s`` the processor time of one of them, over all cores, which other programs hardly lengthen;
``start_s`` is the time until the page is there, imports left out. ``cautioned`` is the share of unchanged test images
with any caution, ``cautioned_enlarged`` that of images enlarged to twice their size, and so on.
"""

import argparse
import asyncio
import http.client
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Thread

import numpy as np
from aiohttp import web

from pipeline.app.packed_samples import PackedSamples
from pipeline.app.served_run import ServedRun, load_run
from pipeline.app.server import PageServer, listen
from pipeline.app.uploads import Sample
from pipeline.commands.app import warm_up
from pipeline.core import params
from pipeline.core.entry import run_main
from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS
from pipeline.core.progress import say, track
from pipeline.sources.images import Image, encode_png, fit, shrink, statistics

BOUNDARY = "benchmark"


@contextmanager
def serving(run: ServedRun) -> Iterator[int]:
    """Serve the page in a thread; its port."""
    opened = listen("127.0.0.1", 0)
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(PageServer(run, limit=1 << 26, names=frozenset()).application(), shutdown_timeout=1)
    loop.run_until_complete(runner.setup())
    loop.run_until_complete(web.SockSite(runner, opened).start())
    thread = Thread(target=loop.run_forever)
    thread.start()
    try:
        yield int(opened.getsockname()[1])
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(runner.cleanup())
        loop.close()


def form(id_: str, image: Image) -> bytes:
    """The form that the page sends: four PNGs of (S, S, 4) uint8."""
    body = b""
    for place, channel in enumerate(CHANNELS):
        head = f'Content-Disposition: form-data; name="files"; filename="{id_}_{channel}.png"'
        body += (
            f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode() + encode_png(np.ascontiguousarray(image[..., place])) + b"\r\n"
        )
    return body + f"--{BOUNDARY}--\r\n".encode()


def seconds(port: int, body: bytes) -> float:
    """The time of an upload, until its result is there.

    Raises:
        RuntimeError: it is refused.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port)
    start = time.perf_counter()
    kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", "X-Part": "result"}
    connection.request("POST", "/analyse", body, kind)
    answer = connection.getresponse()
    text = answer.read().decode()
    took = time.perf_counter() - start
    connection.close()
    if answer.status != 200 or "Probabilities" not in text:
        raise RuntimeError(text[:500])
    return took


def enlarged(image: Image) -> Image:
    """The middle of an image at twice the size."""
    quarter = len(image) // 4
    return fit(image[quarter:-quarter, quarter:-quarter], len(image))


def blurred(image: Image) -> Image:
    """An image without details of less than 6 pixels."""
    return fit(shrink(image, len(image) // 6), len(image))


def darker(image: Image) -> Image:
    """A tenth of the brightness."""
    return (image // 10).astype(np.uint8)


def emptied(image: Image) -> Image:
    """Without the nuclei."""
    changed = image.copy()
    changed[..., CHANNELS.index("blue")] = 0
    return changed


CHANGES: dict[str, Callable[[Image], Image]] = {
    "enlarged": enlarged,
    "blurred": blurred,
    "darker": darker,
    "emptied": emptied,
}


def cautioned(run: ServedRun, sample: Sample) -> bool:
    """Whether the page cautions of a sample."""
    assert run.known is not None  # for the type checker: main has looked
    novelty = float(run.known.novelty(sample.pixels[None])[0])
    return bool(run.likeness.cautions(sample, novelty))


def changed(sample: Sample, change: Callable[[Image], Image]) -> Sample:
    """A sample of changed images."""
    pixels = np.ascontiguousarray(change(np.array(sample.pixels)))
    brightness = {
        channel: statistics(np.ascontiguousarray(pixels[..., place])) for place, channel in enumerate(CHANNELS)
    }
    return replace(sample, pixels=pixels, brightness=brightness)


def chosen_ids(packed: PackedSamples, count: int) -> list[str]:
    """The first test samples, or training samples if there are none."""
    ids = packed.index.loc[packed.index["split"] == "test", "id"].tolist() or packed.index["id"].tolist()
    return [str(id_) for id_ in ids[:count]]


def main(uploads: int, samples: int) -> dict[str, float]:
    """Measure, print, and return the figures.

    Args:
        uploads: number of uploads after the first one.
        samples: number of test samples whose cautions are counted.

    Raises:
        InputError: the run has no packed images or no reference.
    """
    start = time.perf_counter()
    run = load_run(Path("models"), params.load())
    warm_up(run)
    if run.packed is None or run.known is None:
        raise InputError("the benchmark needs the packed images and reference.npz of the run: dvc repro")
    figures = {"start_s": time.perf_counter() - start}
    packed = run.packed
    bodies = [form(id_, np.array(packed.sample(id_).pixels)) for id_ in chosen_ids(packed, uploads + 1)]
    with serving(run) as port:
        first = seconds(port, bodies[0])
        before = time.process_time()
        others = [seconds(port, body) for body in bodies[1:]]
        processor = (time.process_time() - before) / len(others)
    figures |= {"first_s": first, "median_s": float(np.median(others)), "slowest_s": max(others), "cpu_s": processor}
    known = [packed.sample(id_) for id_ in chosen_ids(packed, samples)]
    figures["cautioned"] = float(np.mean([cautioned(run, sample) for sample in track(known, "unchanged")]))
    for name, change in CHANGES.items():
        found = [cautioned(run, changed(sample, change)) for sample in track(known, name)]
        figures[f"cautioned_{name}"] = float(np.mean(found))
    figures["samples"] = len(known)
    for name, value in figures.items():
        say(f"{name:<20} {value:.3g}")
    print(json.dumps(figures))
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uploads", type=int, default=9, help="after the first one (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=160, help="test samples (default: %(default)s)")
    given = parser.parse_args()
    run_main(lambda: [main(given.uploads, given.samples)].clear())
