"""A finished run for other programs: ``python -m pipeline export --out atlas-model.zip [--fast]``.

The package has the whole decision path as ONNX (resizing, normalisation, every model and fold, test-time augmentation,
blend, calibration), thresholds and labels as data, and a script that predicts with onnxruntime, numpy and Pillow alone.
It follows the format of the BioImage Model Zoo, and is written only if bioimageio.spec accepts it and the graph's
probabilities are those of the networks.

Reads ``pack`` (size), ``tta``, ``ensemble``, ``score`` and ``data`` of params.yaml, data/packed/, the models, and
blend/, predictions/ and data/folds.csv beside their folder. Needs the packages of requirements-export.txt.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.core import params
from pipeline.core.errors import InputError
from pipeline.core.progress import say
from pipeline.export import bioimage, documents, graphs, package
from pipeline.export.selection import select
from pipeline.sources.images import Image
from pipeline.sources.packed_array import open_images, read_index

EXAMPLES = 2
"""Test samples in the package."""

LICENSE = "MIT"
"""Of this project, and so of models that were trained on its simulated images."""

AUTHOR = "the authors of hpa-atlas"
"""Of the code and of the simulated images; named if nobody else is."""


def examples(source: str) -> Image:
    """The first samples of the test set, or of the training set if there is none: (2, S, S, 4) uint8.

    Raises:
        InputError: the source is not packed, or has fewer samples.
    """
    index = read_index(source).sort_values("split", kind="stable")  # "test" before "train"
    if len(index) < EXAMPLES:
        raise InputError(f"data/{source} has fewer than {EXAMPLES} samples: nothing to test the package with")
    return np.ascontiguousarray(open_images(source)[np.sort(index["row"].to_numpy()[:EXAMPLES])])


def main(arguments: Sequence[str]) -> None:
    """Write the package."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline export",
        description="Write a finished run as a package of the BioImage Model Zoo: the whole decision path as ONNX, and "
        "a script that predicts with onnxruntime, numpy and Pillow alone.",
        epilog="The package contains two samples of the run's first source (test_input.npy, cover.png). Give --license "
        "and --author for models that were trained on other images than the simulated ones.",
    )
    parser.add_argument("--out", default=Path("atlas-model.zip"), type=Path, help="zip to write (default: %(default)s)")
    parser.add_argument("--models", default=Path("models"), type=Path, help="folder of models (default: models)")
    parser.add_argument(
        "--fast", action="store_true", help="one network (the first fold of the best-weighted model) with one view"
    )
    parser.add_argument("--license", default=LICENSE, metavar="SPDX", help="of the package (default: %(default)s)")
    parser.add_argument(
        "--author", action="append", metavar="NAME", help=f"may be repeated (default: {AUTHOR})", dest="authors"
    )
    parsed = parser.parse_args(arguments)
    out = parsed.out.absolute()
    if out.is_dir() or out.suffix != ".zip":
        raise InputError(f"--out {parsed.out}: name a file that ends in .zip")
    graphs.check_installed()
    package.check_replaceable(out)
    authors = parsed.authors or [AUTHOR]
    bioimage.check_names(parsed.license, authors)
    settings = params.load()
    selection = select(parsed.models, settings, fast=parsed.fast)
    for line in documents.notes(selection):
        say(line)
    images = examples(settings.data.sources[0])
    package.write(out, selection, images, settings, parsed.license, authors)
