"""How many samples ``predict`` calls unlike the training samples: ``python -m benchmarks.novelty --run FOLDER``.

The samples are the test images of a finished run, which are as new to the models as new images are, and the same images
altered: half the resolution, cells of half the size, swapped stains, a stain missing. Beside them are windows of
photographs (those of scikit-learn and matplotlib), with their red, green and blue as microtubules, protein and nucleus
and the mean of red and green as endoplasmic reticulum; and, with ``--fields``, real fields of view.

At a false alarm rate of 5 %, 5 % of the test images should be flagged, and nearly all of the others. ``by embedding``,
``by statistics`` and ``by order`` (of the channels) are the shares that each of the three distances would flag alone at
this rate. Intervals are 95 % bootstrap intervals over groups (antibodies, photographs); where all or none are flagged,
the other end is the exact binomial limit for that many groups. The last line is JSON.
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib import get_data_path
from matplotlib.image import imread
from sklearn.datasets import load_sample_images

from benchmarks.interleaved import report
from pipeline.core import params, paths
from pipeline.core.entry import run_main
from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS
from pipeline.core.progress import track
from pipeline.evaluation.reference_file import load_reference
from pipeline.inference.channel_statistics import channel_statistics
from pipeline.inference.fold_model import FoldModel
from pipeline.inference.new_images import batches, open_places, sample_ids
from pipeline.inference.novelty import FALSE_ALARMS, NoveltyDetector, is_novel
from pipeline.inference.trained_models import load_models
from pipeline.sources.images import Image, fit
from pipeline.sources.packed_array import open_images, read_index

RESAMPLES = 1000
CONFIDENCE = 0.95
BATCH = 16
WINDOWS = 20
"""Windows of each photograph."""

Groups = npt.NDArray[np.str_]


def each_channel(change: Callable[[Image], Image]) -> Callable[[Image], Image]:
    """Apply a change of (S, S) to each channel of (S, S, 4)."""
    return lambda image: np.stack([change(image[..., channel]) for channel in range(len(CHANNELS))], axis=2)


def blur(channel: Image) -> Image:
    """The same field at half the resolution, enlarged again."""
    return fit(fit(channel, len(channel) // 2), len(channel))


def tile(channel: Image) -> Image:
    """Cells of half the size: the field at half the side, and its mirror images around it."""
    small = fit(channel, len(channel) // 2)
    wide = np.hstack([small, small[:, ::-1]])
    return np.vstack([wide, wide[::-1]])


def swap(*order: str) -> Callable[[Image], Image]:
    """The channels of an image in another order."""
    positions = [CHANNELS.index(channel) for channel in order]
    return lambda image: image[..., positions]


def drop(channel: str) -> Callable[[Image], Image]:
    """An image without a stain."""
    kept = np.array([name != channel for name in CHANNELS], np.uint8)
    return lambda image: image * kept


ALTERATIONS: dict[str, Callable[[Image], Image]] = {
    "test images": lambda image: image,
    "half the resolution": each_channel(blur),
    "cells of half the size": each_channel(tile),
    "protein and nucleus swapped": swap("blue", "green", "red", "yellow"),
    "nucleus and microtubules swapped": swap("green", "red", "blue", "yellow"),
    "no protein": drop("green"),
    "no nucleus": drop("blue"),
    "no microtubules": drop("red"),
    "no endoplasmic reticulum": drop("yellow"),
}


def photographs(size: int) -> tuple[Image, Groups]:
    """Windows of photographs as samples, (n, size, size, 4), and the photograph of each."""
    pictures = dict(zip(("china", "flower"), load_sample_images().images, strict=True))
    pictures["portrait"] = imread(Path(get_data_path()) / "sample_data" / "grace_hopper.jpg")
    generator, found, names = np.random.default_rng(0), [], []
    for name, picture in pictures.items():
        for _ in range(WINDOWS):
            side = int(generator.integers(200, min(picture.shape[:2])))
            top, left = (int(generator.integers(length - side + 1)) for length in picture.shape[:2])
            window = picture[top : top + side, left : left + side, :3].astype(np.float32)
            red, green, blue = window[..., 0], window[..., 1], window[..., 2]
            channels = [green, blue, red, (red + green) / 2]
            found.append(np.stack([fit(np.ascontiguousarray(c.astype(np.uint8)), size) for c in channels], axis=2))
            names.append(name)
    return np.stack(found), np.array(names)


def share(flagged: npt.NDArray[np.bool_], groups: Groups) -> tuple[float, float, float]:
    """The share of flagged samples, and the ends of its interval."""
    names, membership = np.unique(groups, return_inverse=True)
    counts = np.stack([np.bincount(membership, flagged), np.bincount(membership)])
    drawn = np.random.default_rng(0).integers(len(names), size=(RESAMPLES, len(names)))
    resampled = counts[0][drawn].sum(axis=1) / counts[1][drawn].sum(axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, (tail, 1 - tail))
    limit = tail ** (1 / len(names))
    if flagged.all():
        low = limit
    if not flagged.any():
        high = 1 - limit
    return float(flagged.mean()), float(low), float(high)


def measure(detector: NoveltyDetector, model: FoldModel, images: Image, groups: Groups) -> dict[str, float]:
    """The shares of images (n, S, S, 4) that are flagged, by all distances and by each alone."""
    parts = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    vectors = np.concatenate([model.embed(part, "the reference's model") for part in parts])
    statistics = np.concatenate([channel_statistics(part) for part in parts])
    flagged, low, high = share(is_novel(detector.novelty(vectors, statistics)), groups)
    alone = (detector.distances(vectors, statistics) > detector.units).mean(axis=0).tolist()
    figures = {"n": len(images), "groups": len(np.unique(groups)), "flagged": flagged, "low": low, "high": high}
    return figures | {"by embedding": alone[0], "by statistics": alone[1], "by order": alone[2]}


def read_test_images(settings: params.Params, samples: int) -> tuple[Image, Groups]:
    """The first test images of the run in this folder, and their groups."""
    source = settings.data.sources[0]
    index = read_index(source)
    test = index[index["split"] == "test"].head(samples)
    if test.empty:
        raise InputError(f"{source} has no test set: name a run that has one")
    groups = test["group"].where(test["group"] != "", test["id"]).to_numpy(dtype=np.str_)
    return np.asarray(open_images(source)[test["row"].to_numpy()]), groups


def main(samples: int, fields: Path | None) -> pd.DataFrame:
    """Print and return the table, for the run in this folder."""
    settings = params.load()
    reference = load_reference(paths.REFERENCE)
    path = paths.model(reference.model, reference.fold)
    model = load_models({reference.model: {reference.fold: path}}, settings.pack.size)[reference.model][0]
    detector = NoveltyDetector(reference)
    test, groups = read_test_images(settings, samples)
    sets = {name: (np.stack([alter(image) for image in test]), groups) for name, alter in ALTERATIONS.items()}
    sets["photographs"] = photographs(settings.pack.size)
    if fields:
        with open_places([fields]) as archive:
            found = list(batches(archive, sample_ids(archive), settings.pack.size, BATCH))
        ids = np.array([id_ for own, _ in found for id_ in own])
        sets["real fields"] = np.concatenate([images for _, images in found]), ids
    shown = track(list(sets.items()), "sets of images", unit="sets")
    table = pd.DataFrame({"images": name} | measure(detector, model, *images) for name, images in shown)
    held_out = int(reference.held_out.sum())
    figures = {"false_alarms": FALSE_ALARMS, "held_out": held_out, "results": table.round(4).to_dict("records")}
    report(table, figures)
    return table


def run(folder: Path, samples: int, fields: Path | None) -> None:
    """Measure the run in a folder."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: name that of a finished run")
    fields = fields and fields.absolute()
    os.chdir(folder)
    main(samples, fields)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, metavar="FOLDER", default=Path(), help="a finished run (default: here)")
    parser.add_argument("--samples", type=int, default=160, help="test images to use (default: %(default)s)")
    parser.add_argument("--fields", type=Path, metavar="FOLDER", help="real fields of view, four PNGs each")
    arguments = parser.parse_args()
    run_main(lambda: run(arguments.run, arguments.samples, arguments.fields))
