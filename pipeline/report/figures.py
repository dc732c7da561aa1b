"""The plots of a run: how it learned, what it scores on each label, and how even its folds are."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Okabe and Ito's palette, distinct for colour-blind readers as well.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#6B6B6B"


def save(figure: Figure, path: Path) -> None:
    """Write a PNG whose bytes depend on nothing but the figure."""
    figure.savefig(path, format="png", dpi=150, bbox_inches="tight", pad_inches=0.2, metadata={"Software": None})


def draw_learning_curves(history: pd.DataFrame) -> Figure:
    """Loss and held-out scores by epoch: a thin line per fold, a thick one for the model's mean.

    Args:
        history: model, fold, epoch, train_loss, held_out_loss, held_out_macro_f1 and
            held_out_mean_average_precision, a row per model, fold and epoch.
    """
    figure = Figure(figsize=(11, 4), layout="constrained")
    loss, macro_f1, ranking = figure.subplots(1, 3)
    for position, (model, curves) in enumerate(history.groupby("model", sort=False)):
        colour = PALETTE[position % len(PALETTE)]
        _draw_curve(loss, curves, "train_loss", colour, style=":")
        _draw_curve(loss, curves, "held_out_loss", colour)
        _draw_curve(macro_f1, curves, "held_out_macro_f1", colour)
        _draw_curve(ranking, curves, "held_out_mean_average_precision", colour)
        loss.plot([], [], color=colour, linewidth=2.2, label=str(model))
    loss.plot([], [], color=GREY, linewidth=2.2, label="held out")
    loss.plot([], [], color=GREY, linewidth=2.2, linestyle=":", label="training")
    loss.set_title("Loss", loc="left")
    macro_f1.set_title("Macro-F1, at the training proportions", loc="left")
    ranking.set_title("Mean average precision", loc="left")
    for axes in (loss, macro_f1, ranking):
        _tidy(axes)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=True))
        axes.grid(axis="y", color="#E6E6E6", linewidth=0.8)
    for axes in (macro_f1, ranking):
        axes.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=6, frameon=False)
    _title(figure, f"Learning curves (thin: each of {history['fold'].nunique()} folds; thick: their mean)")
    return figure


def draw_label_scores(labels: pd.DataFrame, confidence: float) -> Figure:
    """F1 of each label with its interval, the best on top, beside how many samples have it.

    Labels that no sample has are left out.

    Args:
        labels: name, positives, f1, f1_low and f1_high, a row per label.
        confidence: of the intervals.
    """
    table = labels[labels["positives"] > 0].sort_values(["f1", "positives"], kind="stable")
    figure = Figure(figsize=(9, 1.6 + 0.25 * len(table)), layout="constrained")
    scores, amounts = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    rows = np.arange(len(table))
    mean = table["f1"].mean()
    scores.hlines(rows, table["f1_low"], table["f1_high"], color=PALETTE[5], linewidth=4)
    scores.plot(table["f1"], rows, "o", color=PALETTE[0], markersize=6)
    scores.axvline(mean, color=PALETTE[1], linewidth=1.2, linestyle="--", zorder=0)
    scores.text(mean, len(table) - 0.3, f"mean {mean:.3f}", color=PALETTE[1], ha="center", va="bottom")
    scores.set_xlim(-0.02, 1.02)
    scores.set_ylim(-0.7, len(table) - 0.3)
    scores.set_yticks(rows, table["name"])
    scores.set_xlabel(f"held-out F1 and its {confidence:.0%} interval")
    scores.grid(axis="x", color="#E6E6E6", linewidth=0.8)
    amounts.barh(rows, table["positives"], color="#C9C9C9", height=0.7)
    for row, positives in enumerate(table["positives"]):
        amounts.text(positives, row, f" {positives:,}", va="center", color=GREY, fontsize=8)
    amounts.set_xlabel("positive samples")
    amounts.set_xticks([])
    amounts.margins(x=0.25)
    for axes in (scores, amounts):
        _tidy(axes)
        axes.tick_params(axis="y", length=0)
    _title(figure, "How well each location is found")
    return figure


def draw_fold_balance(positives: pd.DataFrame) -> Figure:
    """Positives of each label in each fold, coloured by how far they are from an even spread.

    Labels that no sample has are left out.

    Args:
        positives: counts, a row per label name, a column per fold.
    """
    totals = positives.sum(axis=1).sort_values(ascending=False, kind="stable")
    table = positives.loc[totals[totals > 0].index]
    counts = table.to_numpy()
    deviations = counts / counts.mean(axis=1, keepdims=True) - 1
    figure = Figure(figsize=(3 + 0.9 * counts.shape[1], 2.2 + 0.25 * len(table)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(deviations, cmap="PuOr", vmin=-1, vmax=1, aspect="auto")
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if abs(deviations[row, column]) > 0.7 else "black"
        axes.text(column, row, f"{count:,}", ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(counts.shape[1]), [f"fold {fold}" for fold in table.columns])
    axes.set_yticks(range(len(table)), table.index)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, location="bottom", extend="max", pad=0.02, aspect=30)
    bar.set_ticks([-1, -0.5, 0, 0.5, 1], labels=["none", "half", "even", "half more", "double"])
    bar.outline.set_visible(False)
    bar.set_label("share of the label's positives")
    _title(figure, "Positive samples by label and fold")
    return figure


def _title(figure: Figure, text: str) -> None:
    figure.suptitle(text, fontweight="bold", x=0.01, ha="left")


def _draw_curve(axes: Axes, curves: pd.DataFrame, column: str, colour: str, style: str = "-") -> None:
    by_epoch = curves.pivot_table(index="epoch", columns="fold", values=column)
    axes.plot(by_epoch.index, by_epoch, color=colour, linewidth=0.8, alpha=0.35, linestyle=style)
    axes.plot(by_epoch.index, by_epoch.mean(axis=1), color=colour, linewidth=2.2, linestyle=style)


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
