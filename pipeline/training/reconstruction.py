"""Pre-training without labels: the training of an autoencoder on images, by the same loop as that of networks."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from pipeline.core import hardware, params, processors
from pipeline.core.errors import InputError
from pipeline.core.progress import say
from pipeline.data.augment import Augmentation
from pipeline.data.loader import Batch, Samples, ordered_batches, training_batches
from pipeline.models import backbones
from pipeline.models.autoencoder import Autoencoder, Reconstruction
from pipeline.models.network import Network, autocast
from pipeline.models.pretrained import start_from_weights
from pipeline.models.provenance import Provenance
from pipeline.models.shared_batch import share_random
from pipeline.sources.packed_array import channel_statistics
from pipeline.training.distributed import SINGLE_PROCESS, World
from pipeline.training.history import Epoch
from pipeline.training.loop import TrainingRun, check_shares, train_epochs
from pipeline.training.saved_states import SavedStates
from pipeline.training.step import BaseLearner, Recipe

EVALUATED = 64
"""Images, spread evenly over all, that are reconstructed after each epoch. They are trained on too."""
SHOWN = 6
"""Images of the reconstruction sheet."""
EVERY_IMAGE_ONCE = params.Repeat(below=0, most=1)

Curve = Callable[["EpochErrors"], None]
"""Takes the figures of an epoch."""
Shown = dict[str, npt.NDArray[np.float16]]
"""``shown``, ``target``, ``output`` and ``scored`` of a ``Reconstruction``, (N, 4, h, w) each."""


@dataclass(frozen=True)
class EpochErrors:
    """An epoch of pre-training.

    Attributes:
        epoch: its number, from 0.
        learning_rate: of its last step.
        train_loss: mean over its steps.
        loss: of the averaged network on ``EVALUATED`` images, whose corruption is the same after each epoch.
        mean_loss: what that would be if every pixel were predicted to be its channel's mean.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    loss: float
    mean_loss: float


@dataclass(frozen=True)
class PretrainRecipe:
    """The section ``pretrain`` as the training loop reads one; see ``step.Recipe``."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    warmup: float
    ema_decay: float
    clip_norm: float
    compile: bool
    seed: int
    precision: params.Precision
    accumulate: int = 1
    evaluate_every: int = 1
    keep: Literal["last"] = "last"

    @classmethod
    def of(cls, task: params.Pretrain, precision: params.Precision) -> "PretrainRecipe":
        """The recipe of a task, with the precision of the model."""
        names = [field.name for field in dataclasses.fields(cls) if hasattr(task, field.name)]
        return cls(**{name: getattr(task, name) for name in names}, precision=precision)


class ReconstructionLearner(BaseLearner[Autoencoder]):
    """A learner from images alone; the targets of its batches are not looked at.

    The averaged network draws its random numbers for itself, because the main process alone evaluates it.
    """

    def __init__(self, network: Autoencoder, recipe: Recipe, steps_per_epoch: int, world: World) -> None:
        super().__init__(network, recipe, steps_per_epoch, world)
        share_random(self.ema.network, 0, 1)

    def _backward(self, batch: Batch, share: float) -> Tensor:
        with autocast(self.recipe.precision):
            errors = self._forward(batch[0].to(hardware.device(), non_blocking=True))  # B
        return self._add_gradients(errors.mean() * share)


def build_autoencoder(
    encoder: params.BackboneModel, task: params.Pretrain, images: pd.DataFrame
) -> tuple[Autoencoder, Provenance]:
    """An autoencoder whose encoder has the weights that ``encoder.pretrained`` names.

    Args:
        encoder: the section of the backbone.
        task: of params.yaml.
        images: all images, with ``source`` and ``row``.

    Returns:
        It, and the samples that those weights have seen.

    Raises:
        InputError: see ``Network`` and ``start_from_weights``.
    """
    torch.manual_seed(task.seed)
    network = Network(encoder.model_copy(update={"augment": encoder.augment.model_copy(update={"gain": 1})}))
    mean, std = (torch.from_numpy(values) for values in channel_statistics(images))
    network.initialise(torch.zeros(0), mean, std)
    inherited = start_from_weights(network, encoder)
    return Autoencoder(network, task), inherited


def fit_autoencoder(
    autoencoder: Autoencoder,
    table: pd.DataFrame,
    images: Mapping[str, npt.NDArray[np.uint8]],
    encoder: params.BackboneModel,
    task: params.Pretrain,
    machine: params.Machine,
    on_errors: Curve,
    states: SavedStates,
    world: World = SINGLE_PROCESS,
) -> tuple[Autoencoder, Shown]:
    """Train, and return the moving average of the autoencoder, in evaluation mode, and some reconstructions.

    Args:
        autoencoder: trained in place.
        table: the images to learn from, with ``source``, ``row``, and an empty ``target``: no label is needed.
        images: the packed array of each source.
        encoder: the section of the backbone, with size and augmentation.
        task: the section ``pretrain``.
        machine: of params.yaml.
        on_errors: called in the main process after each epoch; a resumed run calls it again for its earlier epochs.
        states: where the run is saved, and what an interrupted one resumes from.
        world: the processes that train together.

    Raises:
        InputError: as ``loop.fit``; a masked patch would hide all of an image; the backbone cannot process images of
            the size.
        Stopped: Ctrl-C or SIGTERM, after the current step and its save.
    """
    augmentation = Augmentation(encoder.augment, encoder.size)
    backbones.check_sizes(encoder, (augmentation.side, encoder.size))
    if task.objective == "masked" and task.mask_patch >= augmentation.side:
        raise InputError(
            f"params.yaml: pretrain.mask_patch is {task.mask_patch}, and the images have {augmentation.side} px (size "
            "times augment.crop): choose patches that hide less than all of an image"
        )
    training = Samples(table, images, encoder.size, augmentation=augmentation, seed=task.seed)
    check_shares(task.batch_size, len(training), world.size)
    hardware.prepare()
    workers, share = processors.loaders(machine.workers, world.size), (world.rank, world.size)
    batches, draws = training_batches(training, task.batch_size, workers, EVERY_IMAGE_ONCE, {}, share)
    recipe = PretrainRecipe.of(task, encoder.precision)
    learner = ReconstructionLearner(autoencoder, recipe, len(batches), world)
    run = TrainingRun(learner, states, machine.save_minutes)
    evaluated = ordered_batches(Samples(spread(table, EVALUATED), images, encoder.size), machine.predict_batch, 0)

    def errors() -> npt.NDArray[np.float32]:
        if not world.is_main:
            return np.zeros((0, 2), np.float32)
        found = [
            torch.stack([each.errors(), each.errors_of_the_mean()], dim=1).cpu()
            for each in _reconstruct(learner.ema.network, run.interruptible(evaluated), task.seed, encoder.precision)
        ]
        return torch.cat(found).numpy()

    def on_epoch(epoch: Epoch, found: npt.NDArray[np.float32]) -> float:
        loss, mean_loss = (float(value) for value in found.mean(axis=0))
        row = EpochErrors(epoch.epoch, epoch.learning_rate, epoch.train_loss, loss, mean_loss)
        say(
            f"epoch {row.epoch + 1:>3}/{task.epochs}  training loss {row.train_loss:.4f}  loss {row.loss:.4f} "
            f"(channel means: {row.mean_loss:.4f})  {epoch.images_per_second:.0f} images/s"
        )
        on_errors(row)
        return loss

    trained = train_epochs(run, batches, draws, errors, on_epoch, evaluated)
    few = ordered_batches(Samples(spread(table, SHOWN), images, encoder.size), SHOWN, 0)
    [shown] = _reconstruct(trained, few, task.seed, encoder.precision)
    return trained, {name: value.cpu().numpy().astype(np.float16) for name, value in shown._asdict().items()}


def spread(table: pd.DataFrame, count: int) -> pd.DataFrame:
    """At most ``count`` rows of a table, evenly spread, so that every source and the test set are among them."""
    return table.iloc[np.unique(np.linspace(0, len(table) - 1, count).round().astype(int))]


@torch.inference_mode()
def _reconstruct(
    autoencoder: Autoencoder, batches: Iterable[Batch], seed: int, precision: params.Precision
) -> Iterator[Reconstruction]:
    """Reconstruct batches, with the same corruption each time."""
    torch.manual_seed(seed)
    for images, _ in batches:
        with autocast(precision):
            yield autoencoder.reconstruct(images.to(hardware.device()))
