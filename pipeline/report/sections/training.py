"""How the models learned."""

from functools import partial

import pandas as pd

from pipeline.report.blocks import Pictures, Section
from pipeline.report.charts.curves import draw_epochs
from pipeline.report.charts.theme import panel, to_svg
from pipeline.report.run import Run
from pipeline.report.words import figure

LEVEL = 1.02
"""A loss within this factor of the lowest is as good as it."""


def training_section(run: Run) -> Section:
    """Learning curves of each model and fold."""
    history = run.tables["history"]
    parts = {
        "Loss": ("held_out_loss", "train_loss"),
        "Macro-F1 at the training proportions": ("held_out_macro_f1", None),
        "Mean average precision": ("held_out_mean_average_precision", None),
    }
    drawings = []
    for title, (held_out, training) in parts.items():
        picture = panel(partial(draw_epochs, history=history, held_out=held_out, training=training), 3.6, 2.7, title)
        drawings.append(to_svg(picture, f"{title} by epoch, for each model and fold"))
    return Section("training", "Learning curves", [Pictures(drawings, training_caption(history))])


def training_caption(history: pd.DataFrame) -> str:
    """Where each model's held-out loss ended."""
    sentences = ["Thin lines are folds, thick ones their mean."]
    for model, curves in history.groupby("model", sort=False):
        losses = curves.groupby("epoch")[["train_loss", "held_out_loss"]].mean().dropna()
        epochs, held_out = losses.index.to_numpy() + 1, losses["held_out_loss"].to_numpy()
        end, least = held_out[-1], held_out.min()
        level = int((held_out <= LEVEL * least).argmax())
        if len(held_out) == 1:
            course = "was looked at once"
        elif end > LEVEL * least:
            lowest = epochs[held_out.argmin()]
            course = f"was lowest after epoch {lowest} and then rose by {end / least - 1:.0%}: it overfits"
        elif level == len(held_out) - 1:
            course = "still fell at the end: more epochs may help"
        else:
            course = f"levelled off after epoch {epochs[level]}: more epochs would add little"
        sentences.append(
            f"The held-out loss of {model} {course} (ends at {figure(end)}, training at "
            f"{figure(losses['train_loss'].iloc[-1])})."
        )
    return " ".join(sentences)
