"""The plots of a run as pictures that two revisions can be compared by: ``dvc plots diff`` lays them side by side."""

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from pipeline.reporting.charts import (
    STYLE,
    draw_counts,
    draw_epochs,
    draw_heat_map,
    draw_intervals,
    draw_precision_recall,
    panel,
)

COLUMNS = 7
"""Of small precision-recall curves."""


def draw_learning_curves(history: pd.DataFrame) -> Figure:
    """Loss and held-out scores by epoch.

    Args:
        history: model, fold, epoch, train_loss, held_out_loss, held_out_macro_f1 and
            held_out_mean_average_precision, a row per model, fold and epoch.
    """
    title = f"Learning curves (thin: each of {history['fold'].nunique()} folds; thick: their mean)"
    with rc_context(STYLE):
        figure = Figure(figsize=(11, 3.6), layout="constrained")
        loss, macro_f1, ranking = figure.subplots(1, 3)
        draw_epochs(loss, history, "held_out_loss", "train_loss")
        draw_epochs(macro_f1, history, "held_out_macro_f1")
        draw_epochs(ranking, history, "held_out_mean_average_precision")
        loss.set_title("Loss", loc="left")
        macro_f1.set_title("Macro-F1, at the training proportions", loc="left")
        ranking.set_title("Mean average precision", loc="left")
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure


def draw_label_scores(labels: pd.DataFrame, confidence: float) -> Figure:
    """F1 of each label with its interval, the best on top, beside how many samples have it.

    Labels that no sample has are left out.

    Args:
        labels: name, positives, f1, f1_low and f1_high, a row per label.
        confidence: of the intervals.
    """
    present = labels[labels["positives"] > 0].sort_values(["f1", "positives"], ascending=False, kind="stable")
    table = present.rename(columns={"f1": "estimate", "f1_low": "low", "f1_high": "high"})
    mean = float(present["f1"].mean())
    with rc_context(STYLE):
        figure = Figure(figsize=(9, 1.4 + 0.23 * len(table)), layout="constrained")
        scores, amounts = figure.subplots(1, 2, width_ratios=(3, 2))
        draw_intervals(scores, table, (f"mean {mean:.3f}", mean))
        draw_counts(amounts, [""] * len(table), table["positives"].tolist())
        scores.set_xlabel(f"held-out F1 and its {confidence:.0%} interval")
        amounts.set_xlabel("positive samples")
        figure.suptitle("How well each location is found", x=0.01, ha="left", fontweight="bold")
    return figure


def draw_fold_balance(positives: pd.DataFrame) -> Figure:
    """Positives of each label in each fold, tinted by how far they are from an even spread.

    Labels that no sample has are left out.

    Args:
        positives: counts, a row per label name, a column per fold.
    """
    totals = positives.sum(axis=1).sort_values(ascending=False, kind="stable")
    table = positives.loc[totals[totals > 0].index]
    counts = table.to_numpy()
    deviations = counts / counts.mean(axis=1, keepdims=True) - 1
    texts = [[f"{count:,}" for count in row] for row in counts]
    folds = [f"fold {fold}" for fold in table.columns]
    return panel(
        lambda axes: draw_heat_map(axes, deviations, texts, list(table.index), folds),
        max(3.6, 2 + 0.55 * len(folds)),
        0.6 + 0.22 * len(table),
    )


def draw_precision_recall_grid(curves: pd.DataFrame, labels: pd.DataFrame) -> Figure:
    """Precision against recall of each label that some sample has, with the point of its decisions.

    Args:
        curves: label, recall and precision, a row per label and threshold.
        labels: label, name, positives, precision and recall, a row per label.
    """
    present = labels[labels["positives"] > 0]
    rows = -(-len(present) // COLUMNS)
    with rc_context(STYLE):
        height = 0.9 + 1.7 * rows
        figure = Figure(figsize=(1.7 * COLUMNS, height))
        every = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
        # Not "constrained": laying out so many axes would take a second.
        figure.subplots_adjust(0.03, 0.3 / height, 0.99, 1 - 0.6 / height, wspace=0.25, hspace=0.35)
        for axes, (_, label) in zip(every, present.iterrows(), strict=False):
            curve = curves[curves["label"] == label["label"]]
            draw_precision_recall(axes, curve, (label["recall"], label["precision"]))
            axes.set_title(label["name"], fontsize=7, loc="left")
        for axes in every[len(present) :]:
            axes.set_axis_off()
        figure.suptitle("Precision against recall, and the decisions made", x=0.01, ha="left", fontweight="bold")
    return figure
