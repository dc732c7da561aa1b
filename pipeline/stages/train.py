"""Train one model without one fold, by gradient descent or by fitting its head in closed form.

Reads model-params/<model>.json, data/folds.csv, the packed images and weights/; writes
models/<model>/fold-K.safetensors and history/<model>/fold-K.csv. The states of a training are kept in
``.resume/train/`` until the stage tta of the job has ended: by then DVC has recorded the weights. The log is
logs/<model>-<fold>.jsonl.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from pipeline.core import code_digest, hardware, params, paths, stage_inputs
from pipeline.core.entry import model_and_fold, run_main
from pipeline.core.errors import InputError
from pipeline.core.paths import replacing
from pipeline.core.progress import say
from pipeline.data.augment import Augmentation
from pipeline.data.fold_table import read_folds
from pipeline.data.loader import Samples
from pipeline.models import backbones, checkpoint
from pipeline.models.losses import binary_cross_entropy, objective
from pipeline.models.network import Network, compute_type
from pipeline.models.pretrained import start_from_weights
from pipeline.models.provenance import Provenance
from pipeline.sources.packed_array import channel_statistics, open_images
from pipeline.training import history
from pipeline.training.closed_form import fit_closed_form
from pipeline.training.distributed import join_for
from pipeline.training.history import Epoch, EpochScores
from pipeline.training.loop import fit
from pipeline.training.saved_states import SavedStates, fingerprint

NAMED = 3
"""Number of samples that a message names; the others are only counted."""


def main() -> None:
    """Train the model and fold given on the command line."""
    settings = params.load()
    name, fold = model_and_fold(settings)
    recipe = params.load_model(paths.model_params(name))
    if recipe != settings.models[name] and not stage_inputs.run_by_dvc():
        raise InputError(f"{paths.model_params(name)} is older than params.yaml: run dvc repro complete-models")
    world = join_for(recipe, settings.machine.devices)
    if world is None:
        return
    if isinstance(recipe, params.NetworkModel) and recipe.compile:
        hardware.check_compiler()
    if not isinstance(recipe, params.ClassicalModel):
        backbones.check_sizes(recipe, (round(recipe.augment.crop * recipe.size), recipe.size))
    folds = read_folds()
    images = {source: open_images(source) for source in folds["source"].unique()}
    rest, held_out = folds[folds["fold"] != fold], folds[folds["fold"] == fold]
    augmentation = None if isinstance(recipe, params.ClassicalModel) else Augmentation(recipe.augment, recipe.size)
    training = Samples(rest, images, recipe.size, augmentation=augmentation, seed=recipe.seed)
    evaluated = Samples(held_out, images, recipe.size)

    torch.manual_seed(recipe.seed)
    model = checkpoint.build(recipe)
    prior = training.targets.mean(dim=0)
    provenance = Provenance.of_samples(rest)
    if isinstance(model, Network) and not isinstance(recipe, params.ClassicalModel):
        mean, std = channel_statistics(rest)
        model.initialise(prior, torch.from_numpy(mean), torch.from_numpy(std))
        inherited = start_from_weights(model, recipe)
        check_unseen(inherited, held_out, str(recipe.pretrained), f"fold {fold} of model {name}")
        if not inherited.complete and world.is_main:
            say(f"{recipe.pretrained} does not record all samples that it has seen: held-out samples may be among them")
        provenance = provenance.union(inherited)

    rows: list[EpochScores] = []
    loss = objective(recipe, prior) if isinstance(recipe, params.NetworkModel) else binary_cross_entropy
    tensorboard = None
    if settings.machine.tensorboard and world.is_main:
        tensorboard = history.tensorboard_writer(paths.tensorboard(name, fold))

    def on_epoch(epoch: Epoch, probabilities: npt.NDArray[np.float32]) -> float:
        row = history.score_epoch(epoch, probabilities, evaluated.targets.numpy() > 0, prior.numpy(), loss)
        rows.append(row)
        say(history.log_line(row, recipe.epochs if isinstance(recipe, params.NetworkModel) else 1))
        history.write_log(paths.log(name, fold), rows)
        if tensorboard is not None:
            tensorboard(row)
        return row.held_out_loss

    states = SavedStates(paths.states(name, fold), run_fingerprint(recipe, fold, images))
    if isinstance(model, Network) and isinstance(recipe, params.NetworkModel):
        model = fit(model, training, evaluated, recipe, settings.machine, on_epoch, states, world)
    elif not isinstance(recipe, params.NetworkModel):
        fit_closed_form(model, training, evaluated, recipe, settings.machine, on_epoch)
    if not world.is_main:
        return
    stage_inputs.check()  # before the saved states are removed: who takes an edit back goes on from them
    checkpoint.save(paths.model(name, fold), model, recipe, provenance)
    with replacing(paths.history(name, fold)) as temporary:
        history.table(rows).to_csv(temporary, index=False)


def check_unseen(inherited: Provenance, held_out: pd.DataFrame, weights: str, job: str) -> None:
    """Check that the weights to start from have not seen the held-out samples, on which the model will be scored.

    Args:
        inherited: the samples that the weights have seen.
        held_out: the samples of the fold, with ``source`` and ``row``.
        weights: the weight file, for the message.
        job: model and fold, for the message.

    Raises:
        InputError: they have seen some of them.
    """
    seen = inherited.seen_among(held_out)
    if seen:
        named = ", ".join(seen[:NAMED]) + (", ..." if len(seen) > NAMED else "")
        raise InputError(
            f"{weights}: these weights, or weights that they started from, were trained on {len(seen):,} of the "
            f"{len(held_out):,} held-out samples of {job} ({named}): train them without these samples (on another "
            "source or with another sample.seed), or set the model's pretrained to other weights or to false"
        )


def run_fingerprint(recipe: params.Model, fold: int, images: Mapping[str, npt.NDArray[np.uint8]]) -> str:
    """Identify a training run by everything its result depends on; the indexes contain a digest of every image."""
    files = [paths.FOLDS, *(paths.packed_index(source) for source in sorted(images))]
    if not isinstance(recipe, params.ClassicalModel) and isinstance(recipe.pretrained, str):
        files.append(Path(recipe.pretrained).expanduser())
    shapes = {source: array.shape for source, array in sorted(images.items())}
    code = code_digest.of_module("pipeline.stages.train")
    computed = compute_type(recipe.precision)
    return fingerprint(f"{recipe.model_dump_json()} {computed} {fold} {shapes} {code}", files)


if __name__ == "__main__":
    run_main(main)
