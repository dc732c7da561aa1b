"""Train one model without one fold, solve for its head, or grow its forest.

Reads data/folds.csv and the packed images; writes models/<model>/fold-K.safetensors and
history/<model>/fold-K.csv. The state of a training waits in ``.resume/train/`` until it has ended, that of a
solution nowhere; its log is logs/<model>-<fold>.jsonl.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

import pipeline
from pipeline import params, paths
from pipeline.atlas.augment import Augmentation
from pipeline.atlas.batches import Samples
from pipeline.atlas.folds import read_folds
from pipeline.atlas.packed import INDEX, channel_statistics, open_images
from pipeline.cell import model_and_fold
from pipeline.errors import run_stage
from pipeline.files import replacing
from pipeline.model import checkpoint
from pipeline.model.build import build
from pipeline.model.network import Network
from pipeline.model.pretrained import start_from_weights
from pipeline.progress import say
from pipeline.training import history, log
from pipeline.training.fit import Epoch, fit
from pipeline.training.ranks import join
from pipeline.training.resume import States, fingerprint
from pipeline.training.solve import solve


def main() -> None:
    """Train the model and fold that the command line names."""
    settings = params.load()
    name, fold = model_and_fold(settings)
    ranks = join(settings.machine.devices)
    recipe = settings.models[name]
    folds = read_folds()
    images = {source: open_images(source) for source in folds["source"].unique()}
    rest, held_out = folds[folds["fold"] != fold], folds[folds["fold"] == fold]
    training = Samples(rest, images, recipe.size, change=Augmentation(recipe.augment, recipe.size), seed=recipe.seed)
    judged = Samples(held_out, images, recipe.size)

    torch.manual_seed(recipe.seed)
    network = build(recipe)
    prior = training.targets.mean(dim=0)
    if isinstance(network, Network):
        mean, std = channel_statistics(rest)
        network.start_from(prior, torch.from_numpy(mean), torch.from_numpy(std))
        start_from_weights(network, recipe)
    in_steps = isinstance(network, Network) and network.kernel is None

    rows: list[history.Row] = []

    show = log.tensorboard(paths.tensorboard(name, fold)) if settings.machine.tensorboard and ranks.first else None

    def on_epoch(epoch: Epoch, probabilities: npt.NDArray[np.float32]) -> float:
        row = history.judge(epoch, probabilities, judged.targets.numpy() > 0, prior.numpy(), recipe)
        rows.append(row)
        say(history.line(row, recipe.epochs))
        log.write_lines(paths.log(name, fold), rows)
        if show is not None:
            show(row)
        return row.held_out_loss

    if not (in_steps or ranks.first):
        return  # what is solved for takes one process
    states = States(paths.RESUME / "train" / f"{name}-{fold}", run_fingerprint(recipe, fold, images))
    if ranks.first:
        states.remove_others()
    if isinstance(network, Network) and in_steps:
        network = fit(network, training, judged, recipe, settings.machine, on_epoch, states, ranks)
    else:
        solve(network, training, judged, recipe, settings.machine, on_epoch)
    if not ranks.first:
        return
    checkpoint.save(paths.model(name, fold), network, recipe)
    with replacing(paths.history(name, fold)) as temporary:
        history.table(rows).to_csv(temporary, index=False)
    states.remove()


def run_fingerprint(recipe: params.Model, fold: int, images: Mapping[str, npt.NDArray[np.uint8]]) -> str:
    """Name this training by all that its result depends on; the indexes hold digests of every image."""
    files = [paths.FOLDS, *(paths.packed(source) / INDEX for source in sorted(images))]
    if isinstance(recipe.pretrained, str):
        files.append(Path(recipe.pretrained))
    shapes = {source: array.shape for source, array in sorted(images.items())}
    code = sorted(Path(pipeline.__file__).parent.rglob("*.py"))
    return fingerprint(f"{recipe.model_dump_json()} {fold} {shapes}", [*files, *code])


if __name__ == "__main__":
    run_stage(main)
