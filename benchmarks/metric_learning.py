"""Embeddings by metric learning (ArcFace), for ``python -m benchmarks.retrieval`` to judge.

    python -m benchmarks.metric_learning --out FOLDER --images fields mini
    python -m benchmarks.retrieval --run . --embeddings FOLDER/fold-0.npz FOLDER/fold-1.npz FOLDER/fold-2.npz
    python -m benchmarks.retrieval --images fields --embeddings FOLDER/fields.npz

Run it in the folder of a finished run. For each fold, a network starts from the weights of ``--model`` that were
trained without the fold. The pooled feature maps of its last three stages (mean, standard deviation and maximum over
the positions) become an embedding by batch norm, dropout, a linear layer and batch norm. It is trained to tell the
classes of the other folds' samples apart: their groups, that is their antibodies (``--classes groups``), or, where
antibodies are unknown, their sets of labels (``--classes labels``). Windows, augmentation, batches and EMA are those of
the model's section; epochs and learning rate are options. The loss is the cross-entropy of

    scale * cos(angle to the centre of the class + margin, for the sample's own class)

which pulls samples of a class closer together than telling them apart requires. With ``--epochs 0``, the embeddings are
the pooled feature maps of the network that it starts from: what they are good for without metric learning.

``FOLDER/fold-K.npz`` has all packed samples, as ``python -m pipeline embed --run --fold K`` writes them. Each folder of
``--images`` becomes a file of its name, by the network without the first fold. An interrupted training resumes, and a
finished one is not repeated.

Sources: Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR 2019 (the loss, its margin
of 0.5, the layers of the embedding), whose scale of 64 is for 85,000 classes; Wang et al., "Additive Margin Softmax for
Face Verification", 2018 (the scale of 30, for 10,000 classes).
"""

import argparse
import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.retrieval import rate, search_antibodies
from pipeline.commands.embed import packed_batches, run_parts
from pipeline.core import code_digest, hardware, params, paths, processors
from pipeline.core.entry import run_main
from pipeline.core.errors import InputError
from pipeline.core.labels import format_target, target_matrix
from pipeline.core.paths import replacing
from pipeline.core.progress import say
from pipeline.data.augment import Augmentation
from pipeline.data.fold_table import read_folds
from pipeline.data.loader import Batch, Samples, ordered_batches, training_batches
from pipeline.evaluation.embedding_files import Embeddings, write_embeddings
from pipeline.inference.embedding import Vectors
from pipeline.inference.finite import check_finite
from pipeline.inference.fold_model import FoldModel
from pipeline.inference.new_images import batches, open_places, sample_ids
from pipeline.models import checkpoint
from pipeline.models.heads import EMPTY
from pipeline.models.network import Network, autocast
from pipeline.models.provenance import Provenance
from pipeline.sources.images import Image
from pipeline.sources.packed_array import open_images
from pipeline.training.history import Epoch
from pipeline.training.loop import TrainingRun, train_epochs
from pipeline.training.saved_states import SavedStates, fingerprint
from pipeline.training.step import BaseLearner

KEPT = paths.RESUME / "metric-learning"

Codes = npt.NDArray[np.int64]
Classes = Literal["groups", "labels"]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is trained: the options of the command."""

    classes: Classes = "groups"
    margin: float = 0.5
    scale: float = 30.0
    components: int = 256
    epochs: int = 8
    learning_rate: float = 5e-4


def arcface(cosines: Tensor, classes: Tensor, margin: float, scale: float) -> Tensor:
    """The additive angular margin loss, the mean over the samples.

    Where angle and margin add up to more than pi, the cosine would increase with the angle; there it is continued by a
    line of slope 1 in the cosine, as in the authors' implementation.

    Args:
        cosines: (B, C) float32, of the angles between the samples and the centres of the classes.
        classes: (B,) int64.
        margin: radians, 0 to pi.
        scale: what the cosines are multiplied by to be logits.
    """
    own = cosines.gather(1, classes[:, None])
    sines = (1 - own.square()).clamp_min(EMPTY).sqrt()  # at 0 and pi the square root's gradient would be infinite
    added = own * math.cos(margin) - sines * math.sin(margin)
    added = torch.where(own > -math.cos(margin), added, own - math.sin(margin) * margin)
    return F.cross_entropy(scale * cosines.scatter(1, classes[:, None], added), classes)


class Encoder(nn.Module):
    """A network with a pooled embedding of length 1, and the centres of the classes that it is trained to tell apart.

    Args:
        network: its head is not used.
        features: number of pooled features of its last three stages.
        components: of the embedding.
        classes: how many there are.
        dropout: rate, of the pooled features.
    """

    def __init__(self, network: Network, features: int, components: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.network = network
        self.project: nn.Module = nn.Sequential(
            nn.BatchNorm1d(features),
            nn.Dropout(dropout),
            nn.Linear(features, components, bias=False),
            nn.BatchNorm1d(components),
        )
        self.centres = nn.Parameter(torch.randn(classes, components) * components**-0.5)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 4, H, W) uint8 to embeddings (B, D) float32 of length 1."""
        pooled = self.network.head_features(images)
        with torch.autocast(pooled.device.type, enabled=False):  # bfloat16 has too few digits for small angles
            return F.normalize(self.project(pooled.float()), dim=1)

    def cosines(self, vectors: Tensor) -> Tensor:
        """Embeddings (B, D) to the cosines of their angles to the centres, (B, C)."""
        return vectors @ F.normalize(self.centres, dim=1).T


class MetricLearner(BaseLearner[Encoder]):
    """A learner from the classes of images; the targets of its batches are their numbers, (B,)."""

    margin = 0.0
    scale = 1.0

    def _backward(self, batch: Batch, share: float) -> Tensor:
        (images, classes), device = batch, hardware.device()
        with autocast(self.recipe.precision):
            vectors = self._forward(images.to(device, non_blocking=True))
        cosines = self.network.cosines(vectors)
        loss = arcface(cosines, classes.to(device, non_blocking=True), self.margin, self.scale)
        return self._add_gradients(loss * share)


@dataclasses.dataclass(frozen=True)
class FoldEncoder:
    """An encoder that was trained without one fold, and the section that it was trained by."""

    encoder: Encoder
    recipe: params.NetworkModel

    def embed(self, images: Image) -> Vectors:
        """The embeddings (B, D) of images (B, S, S, 4) uint8, at least as large as the model's input."""
        return self.embed_input(FoldModel(self.encoder.network, self.recipe).to_input(images))

    @torch.no_grad()
    def embed_input(self, images: Tensor) -> Vectors:
        """The embeddings (B, D) of images (B, 4, s, s) uint8 at the model's size."""
        hardware.prepare()
        with autocast(self.recipe.precision):
            found = self.encoder(images.to(hardware.device()))
        vectors: Vectors = found.float().cpu().numpy()
        check_finite(vectors, "the encoder")
        return vectors


def number_classes(samples: pd.DataFrame, classes: Classes) -> Codes:
    """The class of each sample, (N,), numbered from 0.

    Args:
        samples: rows of folds.csv.
        classes: what makes a class.

    Raises:
        InputError: no class has two samples, so that there is nothing to learn.
    """
    if classes == "labels":
        truth = target_matrix(samples["target"])
        names = pd.Series([format_target(np.flatnonzero(row).tolist()) for row in truth])
    else:
        names = samples["group"]
    if not names.duplicated().any():
        other = "--classes labels" if classes == "groups" else "more samples"
        raise InputError(f"{paths.FOLDS}: no two samples have the same {classes}: take {other}")
    codes, _ = pd.factorize(names)
    return codes.astype(np.int64)


def build(path: Path, settings: Settings, classes: int) -> tuple[Encoder, params.NetworkModel]:
    """An encoder from the weights of a fold model, and its recipe.

    Raises:
        InputError: the model is not a trained network, or see ``checkpoint.load``.
    """
    network, section = checkpoint.load(path)
    if not isinstance(network, Network) or not isinstance(section, params.NetworkModel):
        raise InputError(f"{path}: --model needs a model of kind network, not {section.kind}")
    changed = {"epochs": settings.epochs, "evaluate_every": max(settings.epochs, 1), "keep": "last"}
    recipe = section.model_copy(update=changed | {"learning_rate": settings.learning_rate})
    torch.manual_seed(recipe.seed)
    with torch.no_grad():
        features = network.head_features(torch.zeros(1, 4, recipe.size, recipe.size, dtype=torch.uint8)).shape[1]
    return Encoder(network, features, settings.components, classes, recipe.dropout), recipe


def train(model: str, fold: int, folds: pd.DataFrame, images: Mapping[str, Image], settings: Settings) -> FoldEncoder:
    """Train without a fold, or find the encoder as it was trained earlier.

    Args:
        model: whose weights without the fold it starts from.
        fold: its samples are embedded for a message after the last epoch, and never learned from.
        folds: folds.csv.
        images: the packed array of each source.
        settings: see ``Settings``.

    Raises:
        InputError: see ``build``, ``number_classes`` and ``loop.fit``.
        Stopped: Ctrl-C or SIGTERM, after the training was saved.
    """
    rest, held_out = folds[folds["fold"] != fold], folds[folds["fold"] == fold]
    codes, start = number_classes(rest, settings.classes), paths.model(model, fold)
    encoder, recipe = build(start, settings, int(codes.max()) + 1)
    if not settings.epochs:
        encoder.project = nn.Identity()
        return FoldEncoder(encoder.to(hardware.device()).eval(), recipe)
    digest = code_digest.of_module("benchmarks.metric_learning")
    described = f"{recipe.model_dump_json()} {settings} {fold} {digest}"
    run = fingerprint(described, [start, paths.FOLDS, *(paths.packed_index(source) for source in sorted(images))])
    kept = KEPT / f"{run}.safetensors"
    if not kept.exists():
        say(f"fold {fold}: {len(rest)} samples of {codes.max() + 1} classes")
        states = SavedStates(KEPT / f"{model}-{fold}", run)
        encoder = fit(encoder, recipe, (rest, held_out), images, codes, settings, states)
        provenance = Provenance.of_samples(rest)
        checkpoint.write(kept, encoder.state_dict(), {"model": recipe.model_dump()}, provenance)
        states.remove_job()
    encoder.load_state_dict(checkpoint.read(kept)[0])
    encoder = encoder.to(hardware.device()).to(memory_format=torch.channels_last)  # as trained: the same last digits
    return FoldEncoder(encoder.eval(), recipe)


def fit(
    encoder: Encoder,
    recipe: params.NetworkModel,
    parts: tuple[pd.DataFrame, pd.DataFrame],
    images: Mapping[str, Image],
    codes: Codes,
    settings: Settings,
    states: SavedStates,
) -> Encoder:
    """Train by the loop of the pipeline, and return the moving average of the encoder, in evaluation mode.

    Args:
        encoder: trained in place.
        recipe: the model's section.
        parts: the samples to learn from, and those held out.
        images: the packed array of each source.
        codes: the class of each sample to learn from.
        settings: of the loss.
        states: where the run is saved, and what an interrupted one resumes from.
    """
    whole = params.load()
    rest, held_out = parts
    augmentation = Augmentation(recipe.augment, recipe.size)
    training = Samples(rest, images, recipe.size, augmentation=augmentation, seed=recipe.seed)
    evaluated = Samples(held_out, images, recipe.size)
    hardware.prepare()
    workers = processors.loaders(whole.machine.workers)
    shown, draws = training_batches(training, recipe.batch_size, workers, recipe.repeat, whole.data.draws)
    unseen = ordered_batches(evaluated, whole.machine.predict_batch, workers)
    training.targets = torch.from_numpy(codes)  # after the repeat factors, which are those of the labels
    learner = MetricLearner(encoder, recipe, max(len(shown) // recipe.accumulate, 1))
    learner.margin, learner.scale = settings.margin, settings.scale
    run = TrainingRun(learner, states, whole.machine.save_minutes)

    def predict() -> Vectors:
        averaged = FoldEncoder(learner.ema.network, recipe)
        return np.concatenate([averaged.embed_input(part) for part, _ in run.interruptible(unseen)])

    def on_epoch(epoch: Epoch, vectors: Vectors) -> float:
        found = rate([search_antibodies(vectors, held_out["group"].to_numpy(dtype=np.str_))])
        say(f"training loss {epoch.train_loss:.2f}; held-out antibodies: mean average precision {found['mAP']:.3f}")
        return 0.0

    return train_epochs(run, shown, draws, predict, on_epoch, unseen)


def write(path: Path, fold: int, encoder: FoldEncoder, shown: Iterable[tuple[list[str], Image]]) -> None:
    """Embed batches of ids and images, and write the file."""
    parts = []
    for ids, images in shown:
        vectors = encoder.embed(images)
        names = np.full(len(ids), "arcface")
        parts.append(Embeddings(np.array(ids), names, np.full(len(ids), fold), vectors))
    with replacing(path) as file:
        write_embeddings(file, Embeddings.joined(parts), path.suffix)
    say(f"{path}: {sum(len(part.ids) for part in parts):,} samples")


def main(model: str, out: Path, images: Sequence[Path], settings: Settings) -> None:
    """Train, embed and write; the arguments are those of the command."""
    names = [f"{folder.absolute().name}.npz" for folder in images]
    whole, folds = params.load(), read_folds()
    fold_files = {fold: f"fold-{fold}.npz" for fold in sorted(folds["fold"].unique().tolist())}
    if len({*names, *fold_files.values()}) < len(names) + len(fold_files):
        raise InputError(f"--images: two files would be called the same ({', '.join(names)}): rename a folder")
    out.mkdir(parents=True, exist_ok=True)
    packed = {source: open_images(source) for source in whole.data.sources}
    for number, (fold, name) in enumerate(fold_files.items()):
        encoder = train(model, fold, folds, packed, settings)
        [(_, table)] = run_parts(fold, list(fold_files), whole.data.sources[0])
        write(out / name, fold, encoder, packed_batches(table, whole.machine.predict_batch))
        for folder, file in zip(images, names, strict=True) if number == 0 else ():
            with open_places([folder]) as archive:
                shown = batches(archive, sample_ids(archive), whole.pack.size, whole.machine.predict_batch)
                write(out / file, fold, encoder, shown)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cbam-384", help="of the run, to start from (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the files are written")
    parser.add_argument("--images", type=Path, nargs="*", default=[], metavar="FOLDER", help="further images to embed")
    parser.add_argument("--classes", choices=("groups", "labels"), default="groups", help="(default: %(default)s)")
    for field in dataclasses.fields(Settings)[1:]:
        option = f"--{field.name.replace('_', '-')}"
        parser.add_argument(option, type=cast(type, field.type), default=field.default, help="(default: %(default)s)")
    chosen = vars(parser.parse_args())
    general = {name: chosen.pop(name) for name in ("model", "out", "images")}
    run_main(lambda: main(**general, settings=Settings(**chosen)))
