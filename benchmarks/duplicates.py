"""Precision and recall of near-duplicate detection: ``python -m benchmarks.duplicates [--real PATH ...]``.

In the simulated images the near-duplicates are known: the same field imaged again, shifted by up to 1/64 of the side,
15 % brighter or darker, with other illumination and new noise. For real images (zips or folders of
``<id>_<channel>.png``; missing channels are black), modified copies are made here; each field must match its own copies
and no other field.

The last line is JSON. For each set of images it has ``precision`` and ``recall`` at the threshold of params.yaml, and
the largest distance of two copies and the smallest distance of two different fields (bits of 256).
"""

import argparse
import io
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from zipfile import ZipFile

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.interleaved import report
from pipeline.core import params
from pipeline.core.labels import CHANNELS
from pipeline.data.duplicates import near_pairs
from pipeline.simulation.competition import plan
from pipeline.simulation.render import render
from pipeline.sources.images import shrink
from pipeline.sources.perceptual_hash import perceptual_hash

Image = npt.NDArray[np.uint8]


def moved(image: Image) -> Image:
    """Shift the field down and left by 1/64 of its side; the border is reflected."""
    shift = max(len(image) // 64, 1)
    padded = np.pad(image, ((shift, shift), (shift, shift), (0, 0)), mode="reflect")
    return np.ascontiguousarray(padded[: len(image), 2 * shift :])


def cropped(image: Image) -> Image:
    """Crop 1/50 of the side from every border."""
    border = len(image) // 50
    return np.ascontiguousarray(image[border:-border, border:-border])


def exposed(image: Image) -> Image:
    """Raise the brightness by a fifth, and the contrast."""
    table = np.clip(255 * 1.2 * np.linspace(0, 1, 256) ** 1.2, 0, 255).astype(np.uint8)
    return np.asarray(table[image], dtype=np.uint8)


def noisy(image: Image) -> Image:
    """Add Gaussian noise with a standard deviation of eight grey levels."""
    noise = np.random.default_rng(0).normal(0, 8, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def halved(image: Image) -> Image:
    """Shrink to half the size by area."""
    return shrink(image, len(image) // 2)


def thinned(image: Image) -> Image:
    """Shrink to half the size by dropping every second pixel (nearest neighbour)."""
    return np.ascontiguousarray(image[::2, ::2])


CHANGES: Sequence[Callable[[Image], Image]] = (moved, cropped, exposed, noisy, halved, thinned)


def simulated(fields: int, size: int) -> tuple[list[str], npt.NDArray[np.str_]]:
    """Hashes of simulated images, and the field of view of each."""
    settings = params.load().sample.model_copy(
        update={"train": fields, "test": 1, "size": size, "near_duplicates": 0.25}
    )
    entries = [entry for entry in plan(settings) if entry.split == "train"]
    hashes = [perceptual_hash(render(entry, settings)) for entry in entries]
    return hashes, np.array([f"{entry.antibody}/{entry.field}" for entry in entries], dtype=np.str_)


def modified(path: Path) -> tuple[list[str], npt.NDArray[np.str_]]:
    """Hashes of real images and their modified copies, and the field of view of each."""
    hashes, fields = [], []
    for id_, image in read_fields(path).items():
        for copy in (image, *(change(image) for change in CHANGES)):
            hashes.append(perceptual_hash(copy))
            fields.append(id_)
    return hashes, np.array(fields, dtype=np.str_)


def read_fields(path: Path) -> dict[str, Image]:
    """Read all samples of a zip or a folder by id, each (S, S, 4) uint8."""
    if path.is_dir():
        files = {file.name: file.read_bytes() for file in path.glob("*.png")}
    else:
        with ZipFile(io.BytesIO(path.read_bytes())) as archive:
            files = {Path(name).name: archive.read(name) for name in archive.namelist() if name.endswith(".png")}
    stains: dict[str, dict[str, Image]] = defaultdict(dict)
    for name, data in sorted(files.items()):
        id_, _, channel = name.removesuffix(".png").rpartition("_")
        stain = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
        stains[id_][channel] = np.asarray(stain, dtype=np.uint8)
    blank = {id_: np.zeros_like(next(iter(found.values()))) for id_, found in stains.items()}
    return {id_: np.dstack([found.get(channel, blank[id_]) for channel in CHANNELS]) for id_, found in stains.items()}


def evaluate(hashes: list[str], fields: npt.NDArray[np.str_], bits: int) -> dict[str, float]:
    """Compare the detected pairs with the pairs of the same field; distances are over all pairs."""
    known = np.array([text != "" for text in hashes])
    packed = np.array([list(bytes.fromhex(text)) for text in hashes if text], dtype=np.uint8)
    fields = fields[known]
    signs = np.unpackbits(packed, axis=1).astype(np.float32) * 2 - 1
    left, right = np.triu_indices(len(fields), 1)
    distances = ((256 - signs @ signs.T) / 2)[left, right]
    same = fields[left] == fields[right]
    pairs, _ = near_pairs(packed, bits)
    true = int((fields[pairs[:, 0]] == fields[pairs[:, 1]]).sum())
    return {
        "images": len(hashes),
        "pairs": int(same.sum()),
        "precision": true / max(len(pairs), 1),
        "recall": true / max(int(same.sum()), 1),
        "largest_copy_distance": float(distances[same].max()),
        "smallest_other_distance": float(distances[~same].min()),
    }


def main(fields: int, size: int, real: Sequence[Path]) -> dict[str, dict[str, float]]:
    """Evaluate each set of images at several thresholds, print, and return the figures at that of params.yaml."""
    default = params.load().folds.near_duplicates
    sets = {"simulated": simulated(fields, size)} | {
        path.parent.name + "/" + path.name: modified(path) for path in real
    }
    rows = [
        {"images of": name, "bits": bits} | evaluate(*hashed, bits)
        for name, hashed in sets.items()
        for bits in sorted({16, 32, 64, 80, 96, default})
    ]
    figures = {name: evaluate(*hashed, default) for name, hashed in sets.items()}
    report(pd.DataFrame(rows), figures)
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fields", type=int, default=400, help="simulated images (default: %(default)s)")
    parser.add_argument("--size", type=int, default=256, help="their size (pixels, default: %(default)s)")
    parser.add_argument("--real", type=Path, nargs="*", default=[], help="zips or folders of real images")
    arguments = parser.parse_args()
    main(arguments.fields, arguments.size, arguments.real)
