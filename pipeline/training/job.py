"""Train a model of any kind on some samples while others are held out: for the stage ``train`` and for the search."""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from pipeline.core import params, paths
from pipeline.core.errors import InputError
from pipeline.core.progress import say
from pipeline.data.augment import Augmentation
from pipeline.data.loader import Samples
from pipeline.models import backbones, checkpoint
from pipeline.models.checkpoint import AnyModel
from pipeline.models.losses import binary_cross_entropy, objective
from pipeline.models.network import Network
from pipeline.models.pretrained import start_from_weights
from pipeline.models.provenance import Provenance
from pipeline.sources.packed_array import channel_statistics
from pipeline.training import history
from pipeline.training.closed_form import fit_closed_form
from pipeline.training.distributed import SINGLE_PROCESS, World
from pipeline.training.history import Epoch, EpochScores
from pipeline.training.loop import fit
from pipeline.training.saved_states import SavedStates

NAMED = 3
"""Number of samples that a message names; the others are only counted."""

OnScores = Callable[[EpochScores, npt.NDArray[np.float32]], None]
"""Takes an evaluated epoch and its held-out probabilities (N, 28)."""


def train_model(
    recipe: params.Model,
    rest: pd.DataFrame,
    held_out: pd.DataFrame,
    images: Mapping[str, npt.NDArray[np.uint8]],
    machine: params.Machine,
    on_scores: OnScores,
    states: SavedStates,
    draws_by_source: Mapping[str, float],
    *,
    job: str,
    world: World = SINGLE_PROCESS,
) -> tuple[AnyModel, Provenance]:
    """Train a model, or fit its head in closed form.

    Args:
        recipe: the model's section.
        rest: the samples to learn from, rows of folds.csv.
        held_out: the samples that are predicted after each evaluated epoch and never learned from.
        images: the packed array of each source.
        machine: of params.yaml.
        on_scores: called in the main process after each evaluated epoch; a resumed training calls it again for earlier
            epochs. The last call has the predictions of the returned model if ``keep`` is ``last``.
        states: where a training by gradient descent is saved, and what an interrupted one resumes from.
        draws_by_source: times that an epoch shows a sample, by source; read by networks that are trained by gradient
            descent.
        job: what is trained, for messages.
        world: the processes that train together.

    Returns:
        The model in evaluation mode, and the samples that it and the weights that it started from have seen.

    Raises:
        InputError: the weights to start from have seen a held-out sample; the backbone cannot process images of the
            size; the training diverges; and as ``fit`` and
            ``fit_closed_form`` say.
        Stopped: Ctrl-C or SIGTERM, after the training was saved.
    """
    augmentation = None
    if not isinstance(recipe, params.ClassicalModel):
        augmentation = Augmentation(recipe.augment, recipe.size)
        backbones.check_sizes(recipe, (augmentation.side, recipe.size))
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
        check_unseen(inherited, held_out, str(recipe.pretrained), job)
        if not inherited.complete and world.is_main:
            say(f"{recipe.pretrained} does not record all samples that it has seen: held-out samples may be among them")
        provenance = provenance.union(inherited)

    loss = objective(recipe, prior) if isinstance(recipe, params.NetworkModel) else binary_cross_entropy

    def on_epoch(epoch: Epoch, probabilities: npt.NDArray[np.float32]) -> float:
        row = history.score_epoch(epoch, probabilities, evaluated.targets.numpy() > 0, prior.numpy(), loss)
        say(history.log_line(row, recipe.epochs if isinstance(recipe, params.NetworkModel) else 1))
        on_scores(row, probabilities)
        return row.held_out_loss

    if isinstance(model, Network) and isinstance(recipe, params.NetworkModel):
        model = fit(model, training, evaluated, recipe, machine, on_epoch, states, draws_by_source, world)
    elif not isinstance(recipe, params.NetworkModel):
        fit_closed_form(model, training, evaluated, recipe, machine, on_epoch)
    return model, provenance


def from_encoder(recipe: params.Model, name: str) -> params.Model:
    """A model's section with the file of its encoder in place of ``pretrained: stage``; any other section as it is.

    Raises:
        InputError: the file is missing.
    """
    if isinstance(recipe, params.ClassicalModel) or recipe.pretrained != params.BY_STAGE:
        return recipe
    if not paths.autoencoder(name).exists():
        raise InputError(
            f"{paths.autoencoder(name)} is missing, from which model {name} starts (pretrained: {params.BY_STAGE}): "
            "run dvc repro pretrain"
        )
    return recipe.model_copy(update={"pretrained": str(paths.autoencoder(name))})


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
