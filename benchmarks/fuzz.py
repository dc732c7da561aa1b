"""Fuzzing of the archive and image readers: ``python -m benchmarks.fuzz --minutes 4``.

Each input is a tiny competition (a zip, or a zip within a zip) or an image (PNG, JPEG) in which a few bytes are
overwritten, deleted or duplicated. It must be rejected with an ``InputError`` or read correctly. Anything else (another
exception, wrong pixels, more than a few seconds) ends the run with an error that names the input. The last line is
JSON.
"""

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import cv2
import numpy as np
import pandas as pd

from benchmarks.interleaved import report
from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS
from pipeline.sources import images
from pipeline.sources.archive import open_archive
from pipeline.sources.packing import pack_sample
from pipeline.sources.samples import list_samples

SIDE = 8
TRUTH = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, len(CHANNELS)), dtype=np.uint8)
SLOW_S = 5.0
"""An input of a few hundred bytes that takes longer counts as a hang."""


def competition() -> dict[str, bytes]:
    """One training sample in Kaggle's layout, as files by name."""
    pngs = {f"train/a_{channel}.png": images.encode_png(TRUTH[..., i].copy()) for i, channel in enumerate(CHANNELS)}
    return {"train.csv": b"Id,Target\na,1 0\n"} | pngs


def zipped(files: dict[str, bytes], method: int) -> bytes:
    """Zip files in memory."""
    buffer = io.BytesIO()
    with ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def read_zip(data: bytes) -> bool:
    """Read a competition as ``pack`` does; return whether it was accepted."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "competition.zip").write_bytes(data)
        with open_archive(Path(folder)) as archive:
            samples, problems = list_samples(archive)
            pixels = np.empty_like(TRUTH)
            for id_ in samples["id"]:
                if isinstance(pack_sample(archive, id_, pixels), list):  # a list of problems
                    return False
                if not np.array_equal(pixels, TRUTH):
                    raise AssertionError("wrong pixels")
            return not problems


def read_png(data: bytes) -> bool:
    """Decode a PNG; since it has checksums, an accepted file must have the right pixels."""
    if not np.array_equal(images.decode(data, "green"), TRUTH[..., 0]):
        raise AssertionError("wrong pixels")
    return True


def read_jpeg(data: bytes) -> bool:
    """Decode a JPEG; it has no checksum, so only the shape of an accepted file is checked."""
    image = images.decode(data, "green")
    if image.ndim != 2 or image.shape[0] != image.shape[1]:
        raise AssertionError("not a square channel")
    return True


def changed(data: bytes, rng: np.random.Generator) -> bytes:
    """Overwrite, delete or duplicate a few bytes in one to three places."""
    result = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        start = int(rng.integers(len(result)))
        stretch = slice(start, start + int(rng.integers(1, 9)))
        kind = rng.integers(8)
        if kind == 0:
            del result[stretch]
        elif kind == 1:
            result[start:start] = result[stretch]
        else:
            length = len(result[stretch])
            result[stretch] = (bytes(length), b"\xff" * length, rng.bytes(length))[rng.integers(3)]
    return bytes(result)


def main() -> None:
    """Try inputs until the time is up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=4, help="run time (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the changes (default: %(default)s)")
    arguments = parser.parse_args()
    files = competition()
    jpeg = cv2.imencode(".jpg", np.repeat(TRUTH[..., :1], 3, axis=2))[1].tobytes()
    cases: dict[str, tuple[bytes, Callable[[bytes], bool]]] = {
        "zip": (zipped(files, 0), read_zip),
        "deflated zip": (zipped(files, ZIP_DEFLATED), read_zip),
        "zip within a zip": (zipped({"all.zip": zipped(files, 0)}, 0), read_zip),
        "png": (files["train/a_green.png"], read_png),
        "jpeg": (jpeg, read_jpeg),
    }
    tried = dict.fromkeys(cases, 0)
    accepted = dict.fromkeys(cases, 0)
    end = time.monotonic() + arguments.minutes * 60
    number = 0
    while time.monotonic() < end:
        for name, (whole, read) in cases.items():
            started = time.monotonic()
            try:
                accepted[name] += read(changed(whole, np.random.default_rng((arguments.seed, number))))
            except InputError:
                pass
            except Exception as error:
                raise RuntimeError(f"{name}, seed {arguments.seed}, input {number}") from error
            if time.monotonic() - started > SLOW_S:
                raise RuntimeError(f"{name}, seed {arguments.seed}, input {number}: more than {SLOW_S} s")
            tried[name] += 1
        number += 1
    table = pd.DataFrame({"input": list(cases), "tried": tried.values(), "accepted": accepted.values()})
    report(table, {"tried": sum(tried.values()), "accepted": sum(accepted.values()), "failures": 0})


if __name__ == "__main__":
    main()
