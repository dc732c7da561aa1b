"""Is pre-training without labels of use? ``python -m benchmarks.pretraining``.

Run it after ``dvc repro folds``. It trains the model ``--model`` of params.yaml on each fold from four starts: random
weights; an autoencoder that starts from random weights; the weights that the model's ``pretrained`` names; an
autoencoder that starts from those. With ``pretrained: false``, it is the first two. The autoencoders learn from all
packed images, test images included, as ``pretrain`` in params.yaml says, and from those of ``--unlabelled FOLDER``;
they read no label. Everything after the start is the same within each pair with and without autoencoder. A network that
starts without trained weights can be given more epochs and another learning rate, which it needs.

The score is the average precision on the out-of-fold samples, each predicted as it is by the network that did not learn
from it: the mean over the labels with at least three positives. Intervals are 95 % by a bootstrap over groups;
differences use the same resamples. With ``--real FOLDER`` (as for benchmarks.real_fields) the networks of all folds
also predict real fields, whose labels none of them has seen.

Each autoencoder and each training keeps its result in ``.resume/pretraining/`` and resumes after an interruption.
The last line is JSON: the mean average precision of each start.
"""

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from benchmarks.interleaved import report
from benchmarks.real_fields import BATCH, MIN_POSITIVES, read_truth
from pipeline.core import code_digest, params, paths
from pipeline.core.entry import run_main
from pipeline.core.errors import InputError
from pipeline.core.labels import LABELS, target_matrix
from pipeline.core.paths import replacing
from pipeline.core.progress import say
from pipeline.data.fold_table import read_folds
from pipeline.evaluation.metrics import Bools, Floats
from pipeline.evaluation.ranking import Doubles, average_precision, group_weights
from pipeline.inference.new_images import batches, open_places
from pipeline.inference.probabilities import VIEWS, probabilities
from pipeline.models import checkpoint
from pipeline.models.checkpoint import AnyModel
from pipeline.models.pretrained import head_weights
from pipeline.models.provenance import Provenance
from pipeline.sources.images import shrink_quickly
from pipeline.sources.packed_array import open_images
from pipeline.stages.pretrain import all_images
from pipeline.training.history import EpochScores
from pipeline.training.job import train_model
from pipeline.training.reconstruction import EpochErrors, build_autoencoder, fit_autoencoder
from pipeline.training.saved_states import SavedStates, fingerprint

KEPT = paths.RESUME / "pretraining"
RESAMPLES = 1000
CONFIDENCE = 0.95
UNLABELLED = "--unlabelled"
"""Name of the source of the further images, which no source folder can have."""

Images = Mapping[str, npt.NDArray[np.uint8]]


@dataclasses.dataclass(frozen=True)
class Start:
    """What a training starts from.

    Attributes:
        weights: the weights that the model's section names, or random ones.
        autoencoder: whether an autoencoder starts from those, and the training from its encoder.
    """

    weights: bool
    autoencoder: bool


STARTS = {
    "nothing": Start(weights=False, autoencoder=False),
    "autoencoder": Start(weights=False, autoencoder=True),
    "weights": Start(weights=True, autoencoder=False),
    "weights, then autoencoder": Start(weights=True, autoencoder=True),
}


@dataclasses.dataclass(frozen=True)
class Real:
    """Real fields: ``images`` (N, S, S, 4), ``truth`` (N, 28); each is its own group, as antibodies are unknown."""

    images: npt.NDArray[np.uint8]
    truth: Bools
    groups: npt.NDArray[np.str_]


@dataclasses.dataclass(frozen=True)
class Judged:
    """The predictions of one start.

    Attributes:
        out_of_fold: (N, 28), in the order of folds.csv.
        real: (M, 28), the mean of all folds' networks; None without real fields.
    """

    out_of_fold: Floats
    real: Floats | None


def read_fields(folder: Path, size: int) -> Real:
    """Read all samples of a folder with train.csv, at a size."""
    with open_places([folder]) as archive:
        ids, truth = read_truth(archive)
        images = np.concatenate([part for _, part in batches(archive, ids, max(size, 512), BATCH)])
    return Real(np.stack([shrink_quickly(image, size) for image in images]), truth, np.array(ids))


def train_encoder(
    model: params.NetworkModel | params.FrozenModel, task: params.Pretrain, further: Real | None, sources: list[str]
) -> Path:
    """Pre-train an autoencoder, or find it as it was trained earlier; returns its weight file."""
    described = params.encoder_section(model)
    section = KEPT / "section.json"
    with replacing(section) as temporary:
        temporary.write_text(described, encoding="utf-8")
    encoder = params.load_encoder(section, task)
    digest = code_digest.of_module("pipeline.stages.pretrain")
    extra = "" if further is None else " ".join(further.groups)
    files = [paths.packed_index(source) for source in sources]
    run = fingerprint(f"{described} {task.model_dump_json()} {extra} {digest}", files)
    path = KEPT / f"encoder-{run}.safetensors"
    if path.exists():
        return path
    packed = all_images(tuple(sources))
    images = {source: open_images(source) for source in sources}
    autoencoder, inherited = build_autoencoder(encoder, task, packed)
    table = packed
    if further is not None:
        rows = pd.DataFrame(
            {"id": further.groups, "row": range(len(further.groups)), "source": UNLABELLED, "target": ""}
        )
        table = pd.concat([packed, rows], ignore_index=True)
        images[UNLABELLED] = further.images
    errors: list[EpochErrors] = []
    trained, _ = fit_autoencoder(
        autoencoder,
        table,
        images,
        encoder,
        task,
        params.load().machine,
        errors.append,
        SavedStates(KEPT / "states", run),
    )
    say(f"autoencoder: loss {errors[-1].loss:.3f}, of the channels' means {errors[-1].mean_loss:.3f}")
    provenance = inherited.union(Provenance.of_samples(packed).without_labels())
    weights = head_weights(encoder.pretrained) | trained.encoder_weights()  # as the stage does
    checkpoint.write(path, weights, {"model": encoder.model_dump()}, provenance)
    SavedStates(KEPT / "states", run).remove_job()
    return path


def judge(
    recipe: params.NetworkModel | params.FrozenModel, folds: pd.DataFrame, images: Images, real: Real | None, name: str
) -> Judged:
    """Train on each fold, unless that was done earlier, and predict."""
    found, fields = np.zeros((len(folds), len(LABELS)), np.float32), list[Floats]()
    weights = [Path(recipe.pretrained)] if isinstance(recipe.pretrained, str) else []
    for fold in sorted(folds["fold"].unique()):
        digest = code_digest.of_module("pipeline.stages.train")
        asked = "" if real is None else " ".join(real.groups)
        run = fingerprint(f"{recipe.model_dump_json()} {fold} {asked} {digest}", [paths.FOLDS, *weights])
        path, out = KEPT / f"{run}.npz", (folds["fold"] == fold).to_numpy()
        if not path.exists():
            say(f"{name}, fold {fold}")
            last: list[Floats] = []

            def keep(_: EpochScores, predicted: Floats, last: list[Floats] = last) -> None:
                last[:] = [predicted]

            states = SavedStates(KEPT / "states", run)
            machine, job = params.load().machine, f"fold {fold}"
            model, _ = train_model(recipe, folds[~out], folds[out], images, machine, keep, states, {}, job=job)
            kept = {"held_out": last[0]} | ({} if real is None else {"real": predict(model, recipe, real)})
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.savez(file, **kept)  # type: ignore[arg-type]
            states.remove_job()
        with np.load(path) as loaded:
            found[out] = loaded["held_out"]
            fields += [] if real is None else [loaded["real"]]
    return Judged(found, None if real is None else np.asarray(np.mean(fields, axis=0)))


def predict(model: AnyModel, recipe: params.NetworkModel | params.FrozenModel, real: Real) -> Floats:
    """Probabilities (N, 28) for real fields, averaged over the views of TTA."""
    parts = np.split(real.images, range(BATCH, len(real.images), BATCH))
    batched = [(torch.from_numpy(part).permute(0, 3, 1, 2), torch.empty(0)) for part in parts]
    return probabilities(model, batched, views=tuple(VIEWS), precision=recipe.precision)


def tabulate(title: str, truth: Bools, groups: npt.NDArray[np.str_], by_start: Mapping[str, Floats]) -> pd.DataFrame:
    """A row per start: its score, and the differences to the first start and to the same one without autoencoder."""
    labels = (truth.sum(axis=0) >= MIN_POSITIVES) & ~truth.all(axis=0)
    weights = [np.ones((1, len(truth))), *group_weights(groups, resamples=RESAMPLES, seed=0)]

    def score(found: Floats) -> Doubles:
        by_label = [average_precision(found[:, labels], truth[:, labels], part) for part in weights]
        return np.asarray(np.nanmean(np.concatenate(by_label), axis=1))

    scores = {name: score(found) for name, found in by_start.items()}
    rows = []
    for name, own in scores.items():
        start = STARTS[name]
        without = next(other for other, each in STARTS.items() if each == dataclasses.replace(start, autoencoder=False))
        rows.append(
            {
                title: name,
                "mean AP": interval(own, ".3f"),
                "to nothing": interval(own - scores["nothing"], "+.3f") if start != STARTS["nothing"] else "",
                "to the same without autoencoder": interval(own - scores[without], "+.3f") if start.autoencoder else "",
            }
        )
    return pd.DataFrame(rows)


def interval(scores: Doubles, style: str) -> str:
    """A score and its percentile interval as text, from (1 + R,): the score, then that of each resample."""
    ends = np.nanquantile(scores[1:], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    value, low, high = (format(number, style) for number in (scores[0], *ends))
    return f"{value} ({low} to {high})"


def main(model: str, unlabelled: Path | None, real: Path | None, scratch_epochs: int, scratch_rate: float) -> None:
    """Pre-train, train, predict and print the tables; the arguments are those of the command."""
    settings = params.load()
    recipe = settings.models.get(model)
    if not isinstance(recipe, params.NetworkModel | params.FrozenModel) or recipe.pretrained in (True, params.BY_STAGE):
        raise InputError(
            f"--model {model}: name a model of kind network or frozen whose pretrained is a weight file or false"
        )
    further = read_fields(unlabelled, recipe.size) if unlabelled else None
    fields = read_fields(real, recipe.size) if real else None
    folds, sources = read_folds(), list(settings.data.sources)
    images = {source: open_images(source) for source in sources}
    KEPT.mkdir(parents=True, exist_ok=True)
    found = {}
    for name, start in STARTS.items():
        if start.weights and not recipe.pretrained:
            continue
        from_file = recipe.pretrained if start.weights else False
        own: params.NetworkModel | params.FrozenModel = recipe.model_copy(update={"pretrained": from_file})
        if start.autoencoder:
            task = settings.pretrain.model_copy(update={"models": (model,), "start": from_file})
            own = own.model_copy(update={"pretrained": str(train_encoder(own, task, further, sources))})
        if isinstance(own, params.NetworkModel) and recipe.pretrained and not start.weights:
            longer = {"epochs": scratch_epochs, "evaluate_every": scratch_epochs, "learning_rate": scratch_rate}
            own = own.model_copy(update=longer)
        found[name] = judge(own, folds, images, fields, name)
    truth, groups = target_matrix(folds["target"]) > 0, folds["group"].to_numpy(dtype=np.str_)
    tables = [tabulate("out of fold", truth, groups, {name: each.out_of_fold for name, each in found.items()})]
    if fields is not None:
        seen = {name: each.real for name, each in found.items() if each.real is not None}
        tables.append(tabulate("real fields", fields.truth, fields.groups, seen))
        print(tables[0].to_markdown(index=False), end="\n\n")
    figures = {name: float(row.split()[0]) for name, row in zip(found, tables[0]["mean AP"], strict=True)}
    report(tables[-1], {"n": len(folds), "mean_ap": figures})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cbam-384", help="a model of params.yaml (default: %(default)s)")
    parser.add_argument("--unlabelled", metavar="FOLDER", type=Path, help="further images for the autoencoder")
    parser.add_argument("--real", metavar="FOLDER", type=Path, help="real fields to judge on as well")
    parser.add_argument("--scratch-epochs", type=int, default=8, help="without trained weights (default: %(default)s)")
    parser.add_argument("--scratch-rate", type=float, default=0.003, help="its learning rate (default: %(default)s)")
    run_main(lambda: main(**vars(parser.parse_args())))
