"""The learning curve: scores of each epoch on the held-out fold, its cost in time and memory, and logging of both."""

import dataclasses
import json
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor

from pipeline.core.errors import InputError
from pipeline.core.paths import replacing
from pipeline.data.loader import Batch
from pipeline.evaluation.metrics import curve_macro_f1

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Cost:
    """The measured cost of an epoch, which differs from run to run.

    Attributes:
        images_per_second: training throughput, all processes together.
        data_wait: share of the training time spent waiting for a batch.
        memory_gb: peak memory so far, of the GPU if there is one, else of this process.
    """

    images_per_second: float
    data_wait: float
    memory_gb: float


@dataclass(frozen=True)
class Epoch(Cost):
    """An epoch of training: its number (from 0), the last learning rate, the mean training loss, and the cost."""

    epoch: int
    learning_rate: float
    train_loss: float


@dataclass(frozen=True)
class EpochScores(Epoch):
    """An epoch with its scores on the held-out fold."""

    held_out_loss: float
    held_out_macro_f1: float
    held_out_mean_average_precision: float


class ThroughputMeter:
    """Measures throughput from its creation on, in one of ``processes`` that train together."""

    def __init__(self, processes: int = 1) -> None:
        self._processes = processes
        self._started = time.perf_counter()
        self._waited = 0.0
        self._images = 0

    def measured(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield the batches, recording the time spent waiting for each."""
        iterator = iter(batches)
        while True:
            asked = time.perf_counter()
            batch = next(iterator, None)
            self._waited += time.perf_counter() - asked
            if batch is None:
                return
            self._images += len(batch[0]) * self._processes
            yield batch

    def read(self) -> Cost:
        """The cost so far. Synchronise the device first, or unfinished work is not counted."""
        seconds = time.perf_counter() - self._started
        return Cost(self._images / seconds, self._waited / seconds, peak_memory() / 1e9)


def peak_memory() -> int:
    """Peak memory in bytes: allocated on the GPU if there is one, else held by this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def score_epoch(
    epoch: Epoch,
    probabilities: Floats,
    truth: npt.NDArray[np.bool_],
    prior: Floats,
    loss: Callable[[Tensor, Tensor], Tensor],
) -> EpochScores:
    """Score an epoch on the held-out fold, without fitting thresholds to it.

    Args:
        epoch: the epoch to which the scores are added.
        probabilities: (N, 28), of the held-out fold.
        truth: (N, 28).
        prior: (28,), proportion of training samples with each label; for macro-F1, each label is predicted for that
            proportion of samples.
        loss: the training objective, computed over the whole fold at once.

    Raises:
        InputError: a probability is not finite: the training diverged between two checks of its loss.
    """
    if not np.isfinite(probabilities).all():
        raise InputError(
            f"the held-out predictions after epoch {epoch.epoch + 1} are not finite: lower the model's "
            "learning_rate, or check its images"
        )
    logits = torch.logit(torch.from_numpy(probabilities), eps=1e-6)
    present = truth.any(axis=0)
    return EpochScores(
        **dataclasses.asdict(epoch),
        held_out_loss=float(loss(logits, torch.from_numpy(truth))),
        held_out_macro_f1=curve_macro_f1(probabilities, truth, prior),
        held_out_mean_average_precision=float(average_precision_score(truth[:, present], probabilities[:, present])),
    )


def log_line(row: EpochScores, epochs: int) -> str:
    """An epoch as a line of the log."""
    return (
        f"epoch {row.epoch + 1:>3}/{epochs}  loss {row.train_loss:.4f}  held-out loss {row.held_out_loss:.4f}  "
        f"macro-F1 {row.held_out_macro_f1:.3f}  mAP {row.held_out_mean_average_precision:.3f}  "
        f"learning rate {row.learning_rate:.1e}  {row.images_per_second:.0f} images/s  "
        f"data wait {row.data_wait:.0%}  {row.memory_gb:.1f} GB"
    )


def table(rows: list[EpochScores]) -> pd.DataFrame:
    """The learning curve, a row per epoch, without the cost, which differs from run to run."""
    measured = [field.name for field in dataclasses.fields(Cost)]
    return pd.DataFrame([dataclasses.asdict(row) for row in rows]).drop(columns=measured)


def write_log(path: Path, rows: Sequence[EpochScores]) -> None:
    """Write the learning curve with the cost as JSON lines, an object per epoch. A log, not an output of the stage."""
    with replacing(path) as temporary:
        temporary.write_text("".join(f"{json.dumps(dataclasses.asdict(row))}\n" for row in rows))


def tensorboard_writer(folder: Path) -> Callable[[EpochScores], None]:
    """Start a TensorBoard run in ``folder``; return a function that adds an epoch to it.

    Raises:
        InputError: the package is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter  # optional, and slow to import
    except ImportError:
        raise InputError(
            "machine.tensorboard in params.yaml: install the package (pip install tensorboard), or set it to false"
        ) from None
    shutil.rmtree(folder, ignore_errors=True)  # a resumed run reports its earlier epochs again
    writer = SummaryWriter(folder)

    def add(row: EpochScores) -> None:
        for name, value in dataclasses.asdict(row).items():
            if name != "epoch":
                writer.add_scalar(name, value, row.epoch + 1)
        writer.flush()

    return add
