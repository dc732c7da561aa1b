"""The learning curve: a line in the log and a row in a table for each epoch."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from sklearn.metrics import average_precision_score

from pipeline import params
from pipeline.model.losses import objective
from pipeline.scoring.counts import curve_macro_f1
from pipeline.training.fit import Epoch
from pipeline.training.meter import Cost

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Row(Epoch):
    """An epoch with what the held-out fold says of it."""

    held_out_loss: float
    held_out_macro_f1: float
    held_out_mean_average_precision: float


def judge(
    epoch: Epoch, probabilities: Floats, truth: npt.NDArray[np.bool_], prior: Floats, recipe: params.Model
) -> Row:
    """Add the held-out figures, none of which takes a decision from the held-out truth.

    Args:
        epoch: what training knows.
        probabilities: (N, 28), held-out.
        truth: (N, 28).
        prior: (28,), share of the training samples with each label; macro-F1 gives each label to that share.
        recipe: the model's section; the held-out loss is that of training, over the whole fold at once.
    """
    logits = torch.logit(torch.from_numpy(probabilities), eps=1e-6)
    held_out_loss = objective(recipe, torch.from_numpy(prior))(logits, torch.from_numpy(truth))
    present = truth.any(axis=0)
    return Row(
        **dataclasses.asdict(epoch),
        held_out_loss=float(held_out_loss),
        held_out_macro_f1=curve_macro_f1(probabilities, truth, prior),
        held_out_mean_average_precision=float(average_precision_score(truth[:, present], probabilities[:, present])),
    )


def line(row: Row, epochs: int) -> str:
    """An epoch for the log."""
    return (
        f"epoch {row.epoch + 1:>3}/{epochs}  loss {row.train_loss:.4f}  held-out loss {row.held_out_loss:.4f}  "
        f"macro-F1 {row.held_out_macro_f1:.3f}  mAP {row.held_out_mean_average_precision:.3f}  "
        f"rate {row.learning_rate:.1e}  {row.images_per_second:.0f} images/s  "
        f"waited {row.data_wait:.0%}  {row.memory_gb:.1f} GB"
    )


def table(rows: list[Row]) -> pd.DataFrame:
    """The learning curve, one row an epoch: what is a function of parameters and data, so not the cost."""
    measured = [field.name for field in dataclasses.fields(Cost)]
    return pd.DataFrame([dataclasses.asdict(row) for row in rows]).drop(columns=measured)
