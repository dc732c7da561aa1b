"""Predict the locations in new images: ``python -m pipeline predict IMAGES... --models DIR --out FILE``.

IMAGES are folders, zips or image files. A sample is four files, named as in the competition (ID_green.png, ID_blue.png,
ID_red.png, ID_yellow.png), or JPEGs as the Human Protein Atlas provides them. With ``--stains``, only the files of the
named stains are needed and read. With ``--rgb``, a sample is one RGB composite, whose name is the id; it has no yellow.
Missing channels are 0, as in training with ``augment.drop_stains``.

The probabilities of each model are averaged over its folds and over the views of params.yaml (test-time augmentation),
then blended, calibrated and compared with thresholds by the decision rule of the run that trained the models. Without
such a run, the result is the uncalibrated mean of all models with one threshold for all labels.

If the run has described its training samples (reference.npz), the table also says how unlike them each sample is
(``novelty``), and a warning names the samples of which 95 % of held-out training samples are less so.

With ``--relative``, the probabilities in the table are relative to those of the sample's other labels
(``evaluation.relative_probabilities``), which can rank images unlike the training images better. The decisions are the
same.

Reads the sections ``pack`` (size), ``tta`` and ``machine`` of params.yaml, the models, and, beside their folder, blend/
and reference.npz.
"""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import get_args

import pandas as pd

from pipeline.core import params
from pipeline.core.errors import EXAMPLES, InputError
from pipeline.core.labels import LABELS
from pipeline.core.paths import replacing
from pipeline.core.progress import say
from pipeline.evaluation.decision_rule import DecisionRule
from pipeline.evaluation.metrics import Bools, Floats
from pipeline.evaluation.relative_probabilities import relative_probabilities
from pipeline.inference.new_images import Layout, batches, choose_layout, open_places, sample_ids
from pipeline.inference.novelty import FALSE_ALARMS, TrainingSamples, is_novel
from pipeline.inference.run_reference import read_training_samples
from pipeline.inference.run_rule import choose_rule, warn_of_missing_stains
from pipeline.inference.trained_models import LoadedModels, find_models, load_models, mean_attention_maps, predict
from pipeline.reporting.pictures import overlay
from pipeline.sources.archive import Archive
from pipeline.sources.images import Image, encode_png

SEPARATOR = "; "
"""Between the label names of a sample."""


def warn_of_novel_samples(ids: Sequence[str], samples: int) -> None:
    """Warn of samples that are unlike the training samples.

    Args:
        ids: of these samples.
        samples: number of all samples.
    """
    if ids:
        more = f" and {len(ids) - EXAMPLES:,} more" if len(ids) > EXAMPLES else ""
        say(
            f"warning: {len(ids):,} of {samples:,} samples are unlike the training samples ({', '.join(ids[:EXAMPLES])}"
            f"{more}): their novelty is at least {1 - FALSE_ALARMS:g}, as that of {FALSE_ALARMS:.0%} of samples like "
            "the training samples; look at them before you rely on their predictions"
        )


def write_overlays(folder: Path, models: LoadedModels, ids: Sequence[str], images: Image, decisions: Bools) -> None:
    """Write the attention map of each predicted label of each sample as a PNG, named after both."""
    samples, labels = decisions.nonzero()
    # In chunks of the batch size, because a sample can have many labels.
    for start in range(0, len(samples), len(ids)):
        part = slice(start, start + len(ids))
        shown = images[samples[part]]
        maps = mean_attention_maps(models, shown, labels[part].tolist())
        for sample, label, image, attention in zip(samples[part], labels[part], shown, maps, strict=True):
            name = f"{ids[sample]}_{LABELS[label].replace(' ', '-')}.png"
            (folder / name).write_bytes(encode_png(overlay(image, attention)))


def table(ids: Sequence[str], predicted: Floats, decisions: Bools) -> pd.DataFrame:
    """A row per sample: ``id``, a column of probabilities per label, and ``labels``, the names of those predicted."""
    rows = pd.DataFrame(predicted, columns=list(LABELS))
    rows.insert(0, "id", list(ids))
    rows["labels"] = [SEPARATOR.join(LABELS[label] for label in row.nonzero()[0]) for row in decisions]
    return rows


def predicted_tables(
    archive: Archive,
    layout: Layout,
    models: LoadedModels,
    rule: DecisionRule,
    settings: params.Params,
    maps: Path | None,
    known: TrainingSamples | None,
    *,
    relative: bool,
) -> Iterator[pd.DataFrame]:
    """Yield the table of each batch; if ``maps`` is given, also write the attention maps to that folder."""
    found = sample_ids(archive, layout)
    for ids, images in batches(archive, found, settings.pack.size, settings.machine.predict_batch, layout):
        _, predicted, decisions = rule.apply(predict(models, images, settings.tta.views))
        if maps is not None:
            write_overlays(maps, models, ids, images, decisions)
        rows = table(ids, relative_probabilities(predicted) if relative else predicted, decisions)
        yield rows if known is None else rows.assign(novelty=known.novelty(images))


def is_earlier_table(path: Path) -> bool:
    """Whether a file is empty, or begins as ``table`` does."""
    with path.open("rb") as file:
        first = file.readline(2**16)
    return not first or first.startswith(",".join(["id", *LABELS]).encode())


def check_outputs(out: Path, maps: Path | None) -> None:
    """Check that both outputs can be written without replacing anything but an earlier table.

    Raises:
        InputError: ``out`` is a folder or a file of something else, or lies inside ``maps``; ``maps`` exists and is not
            an empty folder, or a parent of either is a file.
    """
    for name, place in (("--out", out), ("--maps", maps)):
        if place is not None and (files := [parent for parent in place.parents if parent.is_file()]):
            raise InputError(f"{name} {place}: {files[0]} is a file, not a folder")
    if out.is_dir():
        raise InputError(f"--out {out} is a folder: name a file")
    if out.exists() and not is_earlier_table(out):
        raise InputError(f"--out {out} exists and is not a table of predictions: name another file, or move it away")
    if maps is not None and (maps.is_symlink() or (maps.exists() and not (maps.is_dir() and not any(maps.iterdir())))):
        raise InputError(f"--maps {maps} already exists: name a new folder, or empty this one")
    if maps in (out, *out.parents):
        raise InputError(f"--out {out} lies inside --maps {maps}: choose a path outside that folder")


def main(arguments: Sequence[str]) -> None:
    """Predict the images given on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline predict",
        description="Predict where the protein is in new images, with the models and decision rule of a finished run.",
        epilog="Example: python -m pipeline predict ~/images --models models --out predictions.csv --maps overlays. "
        "A sample is four images, ID_green.png, ID_blue.png, ID_red.png and ID_yellow.png, or RGB JPEGs as the Human "
        "Protein Atlas provides them. The thresholds were chosen on the run's own samples: for other cells or "
        "microscopes, rely on the probabilities.",
    )
    parser.add_argument("images", metavar="IMAGES", nargs="+", type=Path, help="folders, zips or image files")
    parser.add_argument("--models", default=Path("models"), type=Path, help="folder of models (default: models)")
    parser.add_argument(
        "--out",
        default=Path("predictions.csv"),
        type=Path,
        help="table to write: a row per sample with its probabilities and labels (default: predictions.csv)",
    )
    parser.add_argument(
        "--stains",
        metavar="LIST",
        help="the stains that the samples have, for example green,blue; only these are read (default: all four)",
    )
    parser.add_argument(
        "--rgb",
        action="store_true",
        help="a sample is one PNG or JPEG, named ID.png or ID.jpg: microtubules red, protein green, nucleus blue",
    )
    parser.add_argument("--maps", metavar="DIR", type=Path, help="write attention maps to this new folder")
    parser.add_argument("--threshold", type=float, help="one threshold for all labels, not the run's decision rule")
    parser.add_argument(
        "--relative",
        action="store_true",
        help="write probabilities relative to those of the sample's other labels, to rank images of another microscope "
        "or of other cells; the labels are the same",
    )
    parser.add_argument(
        "--precision",
        choices=get_args(params.Precision),
        help="of the networks, in place of the models' own; fp32 gives the numbers of an exported package",
    )
    parsed = parser.parse_args(arguments)
    layout = choose_layout(parsed.stains, rgb=parsed.rgb)
    settings = params.load()
    out, maps = parsed.out.absolute(), parsed.maps and parsed.maps.absolute()
    check_outputs(out, maps)
    found = find_models(parsed.models)
    rule, used = choose_rule(parsed.models, found, parsed.threshold)
    models = load_models(used, settings.pack.size, parsed.precision)
    known = read_training_samples(parsed.models, found, layout, settings.pack.size)
    warn_of_missing_stains(models, layout.stains)
    novel, samples = list[str](), 0
    with ExitStack() as stack:
        archive = stack.enter_context(open_places(parsed.images))
        file = stack.enter_context(replacing(out))
        folder = stack.enter_context(replacing(maps)) if maps else None
        if folder:
            folder.mkdir()
        tables = predicted_tables(archive, layout, models, rule, settings, folder, known, relative=parsed.relative)
        for number, rows in enumerate(tables):
            rows.to_csv(file, mode="a", header=number == 0, index=False, float_format="%.6f", lineterminator="\n")
            samples += len(rows)
            if known is not None:
                novel += rows["id"][is_novel(rows["novelty"].to_numpy())].tolist()
    warn_of_novel_samples(novel, samples)
