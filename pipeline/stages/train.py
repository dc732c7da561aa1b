"""Train one model without one fold, by gradient descent or by fitting its head in closed form.

Reads model-params/<model>.json, ``data.draws`` of params.yaml, data/folds.csv, the packed images, weights/ and
autoencoders/; writes models/<model>/fold-K.safetensors and history/<model>/fold-K.csv. The states of a training are
kept in ``.resume/train/`` until the stage tta of the job has ended: by then DVC has recorded the weights. The log is
logs/<model>-<fold>.jsonl.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.core import code_digest, hardware, params, paths, stage_inputs
from pipeline.core.entry import model_and_fold, run_main
from pipeline.core.errors import InputError
from pipeline.core.paths import replacing
from pipeline.data.fold_table import read_folds
from pipeline.models import checkpoint
from pipeline.models.network import compute_type
from pipeline.sources.packed_array import open_images
from pipeline.training import history
from pipeline.training.distributed import join_for
from pipeline.training.history import EpochScores
from pipeline.training.job import from_encoder, train_model
from pipeline.training.saved_states import SavedStates, fingerprint


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
    folds = read_folds()
    images = {source: open_images(source) for source in folds["source"].unique()}
    rest, held_out = folds[folds["fold"] != fold], folds[folds["fold"] == fold]
    rows: list[EpochScores] = []
    tensorboard = None
    if settings.machine.tensorboard and world.is_main:
        tensorboard = history.tensorboard_writer(paths.tensorboard(name, fold))

    def on_scores(row: EpochScores, _: npt.NDArray[np.float32]) -> None:
        rows.append(row)
        history.write_log(paths.log(name, fold), rows)
        if tensorboard is not None:
            tensorboard(row)

    starting, draws = from_encoder(recipe, name), settings.data.draws
    states = SavedStates(paths.states(name, fold), run_fingerprint(starting, fold, images, draws))
    job = f"fold {fold} of model {name}"
    model, provenance = train_model(
        starting, rest, held_out, images, settings.machine, on_scores, states, draws, job=job, world=world
    )
    if not world.is_main:
        return
    stage_inputs.check()  # before the saved states are removed: who takes an edit back goes on from them
    checkpoint.save(paths.model(name, fold), model, recipe, provenance)
    with replacing(paths.history(name, fold)) as temporary:
        history.table(rows).to_csv(temporary, index=False)


def run_fingerprint(
    recipe: params.Model, fold: int, images: Mapping[str, npt.NDArray[np.uint8]], draws: Mapping[str, float]
) -> str:
    """Identify a training run by everything its result depends on; the indexes contain a digest of every image."""
    files = [paths.FOLDS, *(paths.packed_index(source) for source in sorted(images))]
    if not isinstance(recipe, params.ClassicalModel) and isinstance(recipe.pretrained, str):
        weights = Path(recipe.pretrained).expanduser()
        files += [weights] if weights.exists() else []  # a missing file is an error of train_model
    shapes = {source: array.shape for source, array in sorted(images.items())}
    code = code_digest.of_module("pipeline.stages.train")
    computed = compute_type(recipe.precision)
    return fingerprint(f"{recipe.model_dump_json()} {computed} {fold} {shapes} {sorted(draws.items())} {code}", files)


if __name__ == "__main__":
    run_main(main)
