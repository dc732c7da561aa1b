"""Lines: how training went, precision against recall, and how far probabilities can be taken at their word."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pipeline.report.charts.theme import BLUE, MUTED, ORANGE, PALETTE


def draw_epochs(axes: Axes, history: pd.DataFrame, held_out: str, training: str | None = None) -> None:
    """A figure by epoch: a thin line per fold, a thick one for each model's mean, training dotted.

    Args:
        axes: to draw on.
        history: model, fold, epoch and the columns named, a row per model, fold and epoch; an epoch without a
            look at the held-out fold has a gap there.
        held_out: the column to draw.
        training: the column to draw dotted beside it.
    """
    for position, (model, curves) in enumerate(history.groupby("model", sort=False)):
        colour = PALETTE[position % len(PALETTE)]
        if training:
            _draw_folds(axes, curves, training, colour, ":", "")
        _draw_folds(axes, curves, held_out, colour, "-", str(model))
    if training:
        axes.plot([], [], color=MUTED, linewidth=2.2, label="held out")
        axes.plot([], [], color=MUTED, linewidth=2.2, linestyle=":", label="training")
        axes.legend(loc="upper right", fontsize=8)
    axes.set_xlabel("epochs finished")
    axes.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axes.grid(axis="y")


def draw_precision_recall(axes: Axes, curve: pd.DataFrame, chosen: tuple[float, float]) -> None:
    """Precision against recall over all thresholds, and the point that the decisions have.

    Args:
        axes: to draw on.
        curve: ``recall`` and ``precision``, a row per threshold.
        chosen: recall and precision of the decisions.
    """
    curve = curve.sort_values("recall", kind="stable")
    recall, precision = curve["recall"], curve["precision"]
    axes.fill_between(recall, precision, step="post", color=BLUE, alpha=0.12, linewidth=0)
    axes.step(recall, precision, where="post", color=BLUE, linewidth=1.4)
    axes.plot(*chosen, "o", color=ORANGE, markersize=5, clip_on=False)
    _unit_square(axes)


def draw_calibration(axes: Axes, bins: dict[str, pd.DataFrame]) -> None:
    """Share of positives against mean probability, on the diagonal where probabilities are to be believed.

    Args:
        axes: to draw on.
        bins: ``confidence``, ``observed`` and ``n`` of each bin, by the name of the probabilities.
    """
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle="--")
    for (name, table), colour in zip(bins.items(), (ORANGE, BLUE), strict=False):
        filled = table[table["n"] > 0]
        axes.plot(filled["confidence"], filled["observed"], color=colour, linewidth=1.4, label=name)
        sizes = 8 + 60 * np.sqrt(filled["n"] / filled["n"].max())
        axes.scatter(filled["confidence"], filled["observed"], s=sizes, color=colour, linewidths=0)
    axes.set_xlabel("mean probability")
    axes.set_ylabel("share of positives")
    axes.legend(loc="upper left")
    _unit_square(axes)


def _draw_folds(axes: Axes, curves: pd.DataFrame, column: str, colour: str, style: str, name: str) -> None:
    by_epoch = curves.pivot_table(index="epoch", columns="fold", values=column)
    finished = by_epoch.index + 1
    marker = "o" if len(by_epoch) == 1 else ""  # of a line of one point nothing shows
    axes.plot(finished, by_epoch, color=colour, linewidth=0.8, alpha=0.35, linestyle=style, marker=marker, markersize=3)
    mean = by_epoch.mean(axis=1)
    axes.plot(finished, mean, color=colour, linewidth=2.2, linestyle=style, marker=marker, label=name)


def _unit_square(axes: Axes) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xticks([0, 0.5, 1], ["0", ".5", "1"])
    axes.set_yticks([0, 0.5, 1], ["0", ".5", "1"])
