"""Predict with one model and fold, using test-time augmentation (TTA).

Reads models/<model>/fold-K.safetensors, data/folds.csv and the packed images; writes predictions/<model>/fold-K.npz
with probabilities for the held-out fold and for the test samples of the first source. Then removes the saved states of
the training, whose weights DVC has recorded when this stage begins.
"""

import shutil

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.core import hardware, params, paths, processors
from pipeline.core.entry import model_and_fold, run_main
from pipeline.core.progress import track
from pipeline.data.fold_table import read_folds
from pipeline.data.loader import Samples, closing_workers, ordered_batches
from pipeline.evaluation.prediction_files import Predictions
from pipeline.inference.finite import check_finite
from pipeline.inference.probabilities import probabilities
from pipeline.models import checkpoint
from pipeline.sources.packed_array import open_images, read_index
from pipeline.training.distributed import join_for


def main() -> None:
    """Predict with the model and fold given on the command line."""
    settings = params.load()
    name, fold = model_and_fold(settings)
    world = join_for(settings.models[name], settings.machine.devices)
    if world is None:
        return
    network, recipe = checkpoint.load(paths.model(name, fold))
    network = network.to(hardware.device())
    workers = processors.loaders(settings.machine.workers, world.size)

    def predict(table: pd.DataFrame, what: str) -> npt.NDArray[np.float32]:
        images = {source: open_images(source) for source in table["source"].unique()}
        samples, share = Samples(table, images, recipe.size), (world.rank, world.size)
        batches = ordered_batches(samples, settings.machine.predict_batch, workers, share)
        shown = track(batches, what, unit="batches", shown=world.is_main)
        with world.explain_lost_process(), closing_workers(batches):
            return world.gather(probabilities(network, shown, views=settings.tta.views, precision=recipe.precision))

    folds = read_folds()
    held_out = folds[folds["fold"] == fold]
    source = settings.data.sources[0]
    index = read_index(source)
    test = index[index["split"] == "test"].assign(source=source)
    predictions = Predictions(
        held_out_ids=held_out["id"].to_numpy(dtype=np.str_),
        held_out=predict(held_out, "held-out"),
        test_ids=test["id"].to_numpy(dtype=np.str_),
        test=predict(test, "test"),
    )
    if world.is_main:
        for found in (predictions.held_out, predictions.test):
            check_finite(found, str(paths.model(name, fold)))
        predictions.save(paths.predictions(name, fold))
        if paths.states(name, fold).exists():
            shutil.rmtree(paths.states(name, fold))


if __name__ == "__main__":
    run_main(main)
