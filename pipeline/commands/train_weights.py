"""Train weights on simulated fields, for other models to start from: ``python -m pipeline train-weights PROFILE``.

Draws the fields of the profile into ``.resume/weights/``, trains its model on their windows and positions
(``training/dense.py``), scores it on held-out fields of other antibodies, and writes PROFILE with the suffix
``.safetensors`` (weights) and ``.csv`` (learning curve). Interrupted at any moment, the same command goes on where it
stopped, and the weights are the same bytes.
"""

import argparse
import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from pipeline.core import code_digest, params, paths, processors
from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS, target_matrix
from pipeline.core.locks import locked
from pipeline.core.progress import say
from pipeline.data.loader import Batch
from pipeline.models import checkpoint
from pipeline.models.losses import objective
from pipeline.models.network import Network, compute_type
from pipeline.models.provenance import Provenance
from pipeline.simulation.competition import plan
from pipeline.simulation.competition_archive import targets
from pipeline.simulation.field_store import CELL, Shard, draw_fields, folder_of
from pipeline.training import history
from pipeline.training.dense import fit_fields
from pipeline.training.history import Epoch, EpochScores
from pipeline.training.saved_states import SavedStates, fingerprint
from pipeline.training.windows import Windows

PREDICT_BATCH = 16


def main(arguments: Sequence[str]) -> None:
    """Draw the fields, train, score and write the weights."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline train-weights",
        description="Train weights on simulated fields, for other models to start from (pretrained in params.yaml).",
    )
    parser.add_argument("profile", nargs="?", type=Path, default=Path("weights/cells.yaml"), help="(%(default)s)")
    parser.add_argument("--keep-fields", action="store_true", help="keep the drawn fields for another training")
    parsed = parser.parse_args(arguments)
    profile = params.load_weights_profile(parsed.profile)
    check(profile, parsed.profile)
    with locked(states_folder(parsed.profile) / "lock"):
        train(profile, parsed.profile, keep_fields=parsed.keep_fields)


def train(profile: params.WeightsProfile, path: Path, *, keep_fields: bool) -> None:
    """Draw the fields, train the model of the profile at ``path``, and write its weights and learning curve."""
    recipe = profile.model
    machine = params.Machine(workers="auto", predict_batch=PREDICT_BATCH, devices=1, save_minutes=5, tensorboard=False)
    entries = plan(profile.fields)
    parts = {split: [entry for entry in entries if entry.split == split] for split in ("train", "test")}
    drawn = folder_of(profile.fields, recipe.size)
    shards = {
        split: draw_fields(drawn / split, part, profile.fields, recipe.size, processors.workers(machine.workers))
        for split, part in parts.items()
    }
    truth = {split: target_matrix(targets(part)["Target"]) for split, part in parts.items()}

    torch.manual_seed(recipe.seed)
    network = Network(recipe)
    prior = torch.from_numpy(truth["train"].mean(axis=0, dtype=np.float32))
    network.initialise(prior, *channel_statistics(shards["train"]))
    rows: list[EpochScores] = []
    loss = objective(recipe, prior)

    def on_epoch(epoch: Epoch, probabilities: npt.NDArray[np.float32]) -> float:
        rows.append(history.score_epoch(epoch, probabilities, truth["test"] > 0, prior.numpy(), loss))
        say(history.log_line(rows[-1], recipe.epochs))
        return rows[-1].held_out_loss

    training = Windows([shard.images for shard in shards["train"]], [shard.bits for shard in shards["train"]], recipe)
    code = code_digest.of_module("pipeline.commands.train_weights")
    run = fingerprint(f"{profile.model_dump_json()} {compute_type(recipe.precision)} {code}", [])
    states = SavedStates(states_folder(path), run)
    network = fit_fields(network, training, prior, batches_of(shards["test"]), recipe, machine, on_epoch, states)
    checkpoint.save(
        path.with_suffix(".safetensors"),
        network,
        recipe,
        Provenance.of_ids(entry.id for entry in parts["train"]),
        half=True,
    )
    with paths.replacing(path.with_suffix(".csv")) as temporary:
        history.table(rows).to_csv(temporary, index=False)
    states.remove_job()
    if not keep_fields:
        shutil.rmtree(drawn)


def check(profile: params.WeightsProfile, path: Path) -> None:
    """Check what the profile's sections require of each other, before hours of drawing.

    Raises:
        InputError: names every wrong key.
    """
    model, fields = profile.model, profile.fields
    size, crop, batch = model.size, model.augment.crop, model.batch_size
    side = round(crop * size)  # as Windows cuts them
    requirements = {
        f"model.size is {size}: it must be a multiple of 32, and at most fields.size ({fields.size})": (
            size % 32 == 0 and size <= fields.size
        ),
        f"model.augment.crop is {crop}: crop x size must be a multiple of 32 px, not {side}": side % 32 == 0,
        f"model.augment.warp is {model.augment.warp}: it must be 0": model.augment.warp == 0,
        "model.head must be label_queries, with a pyramid": bool(model.head == "label_queries" and model.pyramid),
        f"model.accumulate is {model.accumulate}: it must be 1": model.accumulate == 1,
        f"model.pretrained is {model.pretrained!r}: it must be false": model.pretrained is False,
        f"model.batch_size is {batch}: there are only {fields.train} fields (fields.train)": batch <= fields.train,
        "model.augment.drop_stains needs normalise: image": (
            not model.augment.drop_stains or model.normalise == "image"
        ),
    }
    if wrong := [requirement for requirement, holds in requirements.items() if not holds]:
        raise InputError(f"{path}: " + "; ".join(wrong))
    with torch.device("meta"):
        finest = Network(model).levels(torch.zeros(2, len(CHANNELS), side, side, dtype=torch.uint8))[0]
    if finest.shape[-1] * CELL != side:
        raise InputError(
            f"{path}: model.backbone is {model.backbone}: labels by position need a stage of stride {CELL}"
        )


def states_folder(profile: Path) -> Path:
    """The folder for the saved states of a profile; profiles of one name in two folders have two."""
    where = hashlib.sha256(str(profile.resolve().parent).encode()).hexdigest()
    return paths.RESUME / "weights" / f"{profile.stem}-{where[:8]}"


def channel_statistics(shards: Sequence[Shard]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each channel over the first shard, as fractions of 255, (4,) each."""
    pixels = shards[0].images.reshape(-1, shards[0].images.shape[-1]) / np.float32(255)
    return torch.from_numpy(pixels.mean(axis=0)), torch.from_numpy(pixels.std(axis=0))


def batches_of(shards: Sequence[Shard]) -> list[Batch]:
    """Whole fields in batches, without targets, which are not needed for predictions."""
    return [
        (torch.from_numpy(np.array(shard.images[start : start + PREDICT_BATCH])).permute(0, 3, 1, 2), torch.empty(0))
        for shard in shards
        for start in range(0, len(shard.images), PREDICT_BATCH)
    ]
