"""Tiny competitions for tests, the same at every call, and a PNG writer that shares nothing with OpenCV."""

import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.labels import CHANNELS

TRAIN = {"a1": "0", "a2": "25 0", "b1": "16", "b2": "27"}
TEST = ("t2", "t1", "t3")

PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"


def field(name: str, side: int = 24) -> npt.NDArray[np.uint8]:
    """Draw the (side, side, 4) uint8 image of a sample: noise that its name decides."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return rng.integers(0, 256, (side, side, len(CHANNELS)), dtype=np.uint8)


def competition(
    train: Mapping[str, str] = TRAIN, test: Sequence[str] = TEST, *, side: int = 24, antibodies: bool = False
) -> dict[str, bytes]:
    """Make the files of a competition in Kaggle's layout, by name."""
    files = {"train.csv": table("Id,Target", *(f"{id_},{target}" for id_, target in train.items()))}
    if test:
        files["sample_submission.csv"] = table("Id,Predicted", *(f"{id_},0" for id_ in test))
    if antibodies:
        files["groups.csv"] = table("id,antibody", *(f"{id_},HPA{id_[0]}" for id_ in (*train, *test)))
    for split, ids in (("train", train), ("test", test)):
        for id_ in ids:
            image = field(id_, side)
            for index, channel in enumerate(CHANNELS):
                files[f"{split}/{id_}_{channel}.png"] = png(image[..., index])
    return files


def table(*lines: str) -> bytes:
    """Join the lines of a CSV file."""
    return "".join(f"{line}\n" for line in lines).encode()


def png(image: npt.NDArray[np.uint8], *, depth: int = 8, colour: int = 0, part: int = 200) -> bytes:
    """Write rows of bytes, (H, bytes a row), as a PNG with its data in parts of ``part`` bytes, as libpng does.

    ``depth`` and ``colour`` are the header's bit depth and colour type; the width follows from them.
    """
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    header = (image.shape[1] * 8 // (depth * samples), image.shape[0], depth, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\x00" + row.tobytes() for row in image))
    parts = [_chunk(b"IDAT", data[start : start + part]) for start in range(0, len(data), part)]
    palette = [_chunk(b"PLTE", bytes(range(256)) * 3)] if colour == 3 else []
    return b"".join(
        [b"\x89PNG\r\n\x1a\n", _chunk(b"IHDR", struct.pack(">IIBBBBB", *header)), *palette, *parts, PNG_END]
    )


def write_zip(path: Path, files: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """Write a zip, its folders included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return path


def write_files(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write loose files, their folders included."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
