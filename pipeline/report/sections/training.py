"""How the models learned."""

from functools import partial

import pandas as pd

from pipeline.report.blocks import Pictures, Section
from pipeline.report.charts.curves import draw_epochs
from pipeline.report.charts.theme import panel, to_svg
from pipeline.report.run import Run
from pipeline.report.words import figure


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
        lowest, last = losses["held_out_loss"].idxmin(), losses.index[-1]
        end, least = losses["held_out_loss"].loc[last], losses["held_out_loss"].min()
        if lowest == last:
            course = "still fell at the end: more epochs may help"
        elif end < 1.02 * least:
            course = f"levelled off after epoch {lowest}: more epochs would add little"
        else:
            course = f"was lowest at epoch {lowest} and then rose by {end / least - 1:.0%}: it overfits"
        sentences.append(
            f"The held-out loss of {model} {course} (ends at {figure(end)}, training at "
            f"{figure(losses['train_loss'].loc[last])})."
        )
    return " ".join(sentences)
