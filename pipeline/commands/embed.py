"""Embeddings of images: ``python -m pipeline embed IMAGES... --out FILE``, or ``--run`` for a run's own samples.

IMAGES, ``--stains`` and ``--rgb`` are as for ``predict``. The embedding of a sample is a vector; the more similar a
model finds two samples, the smaller the angle between theirs. All vectors of new images are by one fold model, because
vectors of different models cannot be compared: by default that of the run's reference.npz, whose training samples can
then be searched for similar ones.

``--run`` embeds the packed samples of the run in this folder: each training sample by the model that was trained
without its fold, test samples by that of the first fold. With ``--fold``, one fold model embeds all of them.

The file has a row per sample with its ``id``, ``model`` and ``fold``, and a column per component (``v0``, ``v1``, ...).
Its ending chooses the format: .csv, .npz (arrays ``ids``, ``models``, ``folds`` and ``vectors``), or, if
requirements-embeddings.txt is installed, .parquet or .h5ad (an AnnData object for the tools of single-cell biology).
"""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.core import params
from pipeline.core.errors import InputError
from pipeline.core.paths import replacing
from pipeline.core.progress import say, track
from pipeline.data.fold_table import read_folds
from pipeline.evaluation.embedding_files import Embeddings, check_format, write_embeddings
from pipeline.evaluation.reference_file import stored_reference
from pipeline.inference.new_images import batches, choose_layout, open_places, sample_ids
from pipeline.inference.trained_models import WeightFiles, find_models, load_models
from pipeline.sources.images import Image
from pipeline.sources.packed_array import open_images, read_index


def choose_fold_model(folder: Path, found: WeightFiles, model: str | None, fold: int | None) -> tuple[str, int]:
    """The model and the fold to embed with: those asked for, or of the run's reference, or the first ones.

    Raises:
        InputError: there is no such model or fold.
    """
    reference = stored_reference(folder.absolute().parent)
    if reference is not None and model in (None, reference.model) and reference.fold in found.get(reference.model, {}):
        model = reference.model
        fold = reference.fold if fold is None else fold
    name = next(iter(found)) if model is None else model
    if name not in found:
        raise InputError(f"--model {name} is not in {folder}: choose from {', '.join(found)}")
    number = min(found[name]) if fold is None else fold
    if number not in found[name]:
        choices = ", ".join(map(str, found[name]))
        raise InputError(f"--fold {number} of {name} is not in {folder}: choose from {choices}")
    return name, number


def run_parts(fold: int | None, folds: Sequence[int], source: str) -> Iterator[tuple[int, pd.DataFrame]]:
    """The samples of the run that each fold model embeds: ``id``, ``source`` and ``row``.

    Args:
        fold: embeds all samples if given, even those that it was trained on.
        folds: of the run; the first one embeds the test samples.
        source: with the test set.
    """
    training = read_folds()
    index = read_index(source)
    test = index[index["split"] == "test"].assign(source=source)
    for number in folds if fold is None else [fold]:
        own = training if fold is not None else training[training["fold"] == number]
        shown = [own, test] if number == folds[0] or fold is not None else [own]
        yield number, pd.concat([part[["id", "source", "row"]] for part in shown], ignore_index=True)


def packed_batches(table: pd.DataFrame, size: int) -> Iterator[tuple[list[str], Image]]:
    """Ids and images of packed samples, in batches."""
    packed = {source: open_images(source) for source in table["source"].unique()}
    for start in track(range(0, len(table), size), "embedding", unit="batches"):
        part = table.iloc[start : start + size]
        images = [packed[source][row] for source, row in zip(part["source"], part["row"], strict=True)]
        yield part["id"].tolist(), np.stack(images)


def main(arguments: Sequence[str]) -> None:
    """Embed the images given on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline embed",
        description="A vector for each sample, by a trained model: similar samples have similar vectors.",
        epilog="Example: python -m pipeline embed ~/images --models models --out embeddings.npz. Vectors of different "
        "models or folds cannot be compared.",
    )
    parser.add_argument("images", metavar="IMAGES", nargs="*", type=Path, help="folders, zips or image files")
    parser.add_argument("--run", action="store_true", help="embed the samples of the run in this folder, not IMAGES")
    parser.add_argument("--models", default=Path("models"), type=Path, help="folder of models (default: models)")
    parser.add_argument("--model", help="the model to use (default: that of reference.npz, or the first one)")
    parser.add_argument("--fold", type=int, help="the fold it was trained without (default: likewise)")
    parser.add_argument("--out", default=Path("embeddings.csv"), type=Path, help="file (default: embeddings.csv)")
    parser.add_argument("--stains", metavar="LIST", help="the stains that the samples have (default: all four)")
    parser.add_argument("--rgb", action="store_true", help="a sample is one RGB composite, ID.png or ID.jpg")
    parsed = parser.parse_args(arguments)
    if parsed.run == bool(parsed.images):
        raise InputError("name images to embed, or give --run for the samples of the run in this folder")
    if parsed.run and (parsed.stains or parsed.rgb):
        raise InputError("--run embeds packed images, which --stains and --rgb do not concern: leave these out")
    out: Path = parsed.out.absolute()
    check_format(out)
    layout = choose_layout(parsed.stains, rgb=parsed.rgb)
    settings = params.load()
    found = find_models(parsed.models)
    name, fold = choose_fold_model(parsed.models, found, parsed.model, parsed.fold)
    size, batch_size = settings.pack.size, settings.machine.predict_batch
    parts: list[Embeddings] = []

    def embed(number: int, shown: Iterator[tuple[list[str], Image]]) -> None:
        model = load_models({name: {number: found[name][number]}}, size)[name][0]
        for ids, images in shown:
            vectors = model.embed(images, f"{name}, fold {number}")
            parts.append(Embeddings(np.array(ids), np.full(len(ids), name), np.full(len(ids), number), vectors))

    with replacing(out) as file:
        if parsed.run:
            if parsed.fold is None and (missing := sorted(set(settings.folds.ids) - set(found[name]))):
                raise InputError(f"{parsed.models} lacks {name} of the folds {missing}: run dvc repro, or give --fold")
            for number, table in run_parts(parsed.fold, settings.folds.ids, settings.data.sources[0]):
                embed(number, packed_batches(table, batch_size))
        else:
            with open_places(parsed.images) as archive:
                shown = batches(archive, sample_ids(archive, layout), size, batch_size, layout, "embedding")
                with closing(shown):
                    embed(fold, shown)
        write_embeddings(file, Embeddings.joined(parts), out.suffix)
    say(f"{out}: {sum(len(part.ids) for part in parts):,} samples")
