"""Where the protein sits in new images: ``python -m pipeline predict IMAGES... --models DIR --out FILE``.

IMAGES are folders, zips or files, four a sample, named as the competition names them (ID_green.png, ID_blue.png,
ID_red.png, ID_yellow.png) or JPEGs as the atlas serves them. The models below ``--models`` are
averaged over their folds and the views of params.yaml, and what comes out is blended, calibrated and decided as on the
run's own test set. Without a run beside the models it is the mean of them all, and one threshold for all labels.

Reads the sections ``pack`` (size), ``tta`` and ``machine`` of params.yaml, the models, and blend/ beside their folder.
"""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pandas as pd

from pipeline.core import params
from pipeline.core.errors import InputError
from pipeline.core.labels import LABELS
from pipeline.core.paths import replacing
from pipeline.core.progress import say
from pipeline.evaluation.calibration import Singles
from pipeline.evaluation.decision_rule import DecisionRule
from pipeline.evaluation.metrics import Bools
from pipeline.inference.new_images import batches, open_places, sample_ids
from pipeline.inference.trained_models import (
    Ensemble,
    WeightFiles,
    find_models,
    load_models,
    mean_attention_maps,
    predict,
    stored_rule,
    uncalibrated_rule,
)
from pipeline.reporting.pictures import overlay
from pipeline.sources.archive import Archive
from pipeline.sources.images import Image, encode_png

THRESHOLD = 0.3
"""Where neither a run nor the user gives one: a usual choice in this competition for models trained by focal loss."""

SEPARATOR = "; "


def choose_rule(folder: Path, found: WeightFiles, threshold: float | None) -> tuple[DecisionRule, WeightFiles]:
    """What decides, and the weight files that it takes, in its order.

    That is the rule of the run to which the models' folder belongs, or else the plain one with the user's threshold.

    Raises:
        InputError: the run's is damaged or needs models that are not there, or the threshold is not in 0..1.
    """
    if threshold is not None:
        if not 0 <= threshold <= 1:
            raise InputError(f"--threshold {threshold}: a probability is in 0..1")
        return uncalibrated_rule(len(found), threshold), found
    stored = stored_rule(folder.absolute().parent)
    if stored is None:
        say(f"no run beside {folder}: the models' uncalibrated mean, and the threshold {THRESHOLD} for all labels")
        return uncalibrated_rule(len(found), THRESHOLD), found
    there = {(model, fold) for model, by_fold in found.items() for fold in by_fold}
    needed = [(model, fold) for model, folds in stored.members.items() for fold in folds]
    if missing := sorted(set(needed) - there):
        raise InputError(
            f"{folder} lacks {_listed(missing)}, on which the run beside it decides: run dvc repro, or give --threshold"
        )
    if others := sorted(there - set(needed)):
        say(f"left alone, as the run beside {folder} does not decide on them: {_listed(others)}")
    return stored.rule, {model: {fold: found[model][fold] for fold in own} for model, own in stored.members.items()}


def write_overlays(folder: Path, ensemble: Ensemble, ids: Sequence[str], images: Image, decisions: Bools) -> None:
    """Write a PNG for each sample and label that was decided on, named by both."""
    samples, labels = decisions.nonzero()
    # As many at once as there are samples: a field can have many labels.
    for start in range(0, len(samples), len(ids)):
        part = slice(start, start + len(ids))
        shown = images[samples[part]]
        maps = mean_attention_maps(ensemble, shown, labels[part].tolist())
        for sample, label, image, looked_at in zip(samples[part], labels[part], shown, maps, strict=True):
            name = f"{ids[sample]}_{LABELS[label].replace(' ', '-')}.png"
            (folder / name).write_bytes(encode_png(overlay(image, looked_at)))


def table(ids: Sequence[str], predicted: Singles, decisions: Bools) -> pd.DataFrame:
    """A row a sample: ``id``, the probability of each label by name, and ``labels``, the names of those decided on."""
    rows = pd.DataFrame(predicted, columns=list(LABELS))
    rows.insert(0, "id", list(ids))
    rows["labels"] = [SEPARATOR.join(LABELS[label] for label in row.nonzero()[0]) for row in decisions]
    return rows


def predicted_tables(
    archive: Archive, ensemble: Ensemble, rule: DecisionRule, settings: params.Params, maps: Path | None
) -> Iterator[pd.DataFrame]:
    """The tables of all samples, batch by batch; with ``maps``, their overlays are written to that folder."""
    for ids, images in batches(archive, sample_ids(archive), settings.pack.size, settings.machine.predict_batch):
        _, predicted, decisions = rule.apply(predict(ensemble, images, settings.tta.views))
        if maps is not None:
            write_overlays(maps, ensemble, ids, images, decisions)
        yield table(ids, predicted, decisions)


def check_outputs(out: Path, maps: Path | None) -> None:
    """Make sure that neither place to write to is in use by something of another kind, or by the other.

    Raises:
        InputError: the table's place is a folder or lies in that of the maps, that of the maps is in use, or either
            would lie in a file.
    """
    for name, place in (("--out", out), ("--maps", maps)):
        if place is not None and (files := [parent for parent in place.parents if parent.is_file()]):
            raise InputError(f"{name} {place}: {files[0]} is a file, not a folder")
    if out.is_dir():
        raise InputError(f"--out {out} is a folder: name a file")
    if maps is not None and (maps.is_symlink() or (maps.exists() and not (maps.is_dir() and not any(maps.iterdir())))):
        raise InputError(f"--maps {maps} is there already: name a new folder, or empty this one")
    if maps in (out, *out.parents):
        raise InputError(f"--out {out} lies in --maps {maps}: name a place beside it")


def main(arguments: Sequence[str]) -> None:
    """Predict the images that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline predict",
        description="Predict where the protein is in new images, with the models and decision rule of a finished run.",
        epilog="Example: python -m pipeline predict ~/images --models models --out predictions.csv --maps overlays. "
        "A sample is four images, ID_green.png, ID_blue.png, ID_red.png and ID_yellow.png, or RGB JPEGs as the Human "
        "Protein Atlas provides them. Thresholds were chosen on the run's own samples: for other cells or microscopes, "
        "look at the probabilities.",
    )
    parser.add_argument("images", metavar="IMAGES", nargs="+", type=Path, help="folders, zips or image files")
    parser.add_argument("--models", default=Path("models"), type=Path, help="a folder of models (default: models)")
    parser.add_argument(
        "--out",
        default=Path("predictions.csv"),
        type=Path,
        help="table to write: a row per sample with its probabilities and labels (default: predictions.csv)",
    )
    parser.add_argument("--maps", metavar="DIR", type=Path, help="draw attention maps into this new folder")
    parser.add_argument("--threshold", type=float, help="one threshold for all labels, in place of the run's own")
    parsed = parser.parse_args(arguments)
    settings = params.load()
    out, maps = parsed.out.absolute(), parsed.maps and parsed.maps.absolute()
    check_outputs(out, maps)
    found = find_models(parsed.models)
    rule, used = choose_rule(parsed.models, found, parsed.threshold)
    ensemble = load_models(used, settings.pack.size)
    with ExitStack() as stack:
        archive = stack.enter_context(open_places(parsed.images))
        file = stack.enter_context(replacing(out))
        folder = stack.enter_context(replacing(maps)) if maps else None
        if folder:
            folder.mkdir()
        for number, rows in enumerate(predicted_tables(archive, ensemble, rule, settings, folder)):
            rows.to_csv(file, mode="a", header=number == 0, index=False, float_format="%.6f", lineterminator="\n")


def _listed(cells: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{model} fold {fold}" for model, fold in cells)
