"""Predict with one model and fold, averaged over views.

Reads models/<model>/fold-K.safetensors, data/folds.csv and the packed images; writes
predictions/<model>/fold-K.npz with the held-out samples of the fold and the test samples of the first source.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline import params, paths
from pipeline.atlas.batches import Samples, ordered_batches, workers_of
from pipeline.atlas.folds import read_folds
from pipeline.atlas.packed import open_images, read_index
from pipeline.cell import model_and_fold
from pipeline.errors import run_stage
from pipeline.model import checkpoint
from pipeline.progress import track
from pipeline.scoring.predictions import Predictions
from pipeline.training import runtime
from pipeline.training.predict import probabilities
from pipeline.training.ranks import join


def main() -> None:
    """Predict with the model and fold that the command line names."""
    settings = params.load()
    name, fold = model_and_fold(settings)
    ranks = join(settings.machine.devices)
    network, recipe = checkpoint.load(paths.model(name, fold))
    network = network.to(runtime.device())
    workers = runtime.workers(settings.machine.workers, ranks.size)

    def predict(table: pd.DataFrame, what: str) -> npt.NDArray[np.float32]:
        images = {source: open_images(source) for source in table["source"].unique()}
        samples, share = Samples(table, images, recipe.size), (ranks.rank, ranks.size)
        batches = ordered_batches(samples, settings.machine.predict_batch, workers, share)
        shown = track(batches, what, unit="batches", shown=ranks.first)
        with ranks.together(), workers_of(batches):
            return ranks.gather(probabilities(network, shown, views=settings.tta.views, precision=recipe.precision))

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
    if ranks.first:
        predictions.save(paths.predictions(name, fold))


if __name__ == "__main__":
    run_stage(main)
