"""The figures in plots/: learning curves, scores by label, fold balance, precision-recall curves.

``dvc plots diff`` shows those of two revisions side by side.
"""

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
"""Precision-recall plots per row."""


def draw_learning_curves(history: pd.DataFrame) -> Figure:
    """Loss and held-out scores by epoch.

    Args:
        history: model, fold, epoch, train_loss, held_out_loss, held_out_macro_f1 and
            held_out_mean_average_precision, a row per model, fold and epoch.
    """
    title = f"Learning curves (thin lines: the {history['fold'].nunique()} folds; thick lines: their mean)"
    with rc_context(STYLE):
        figure = Figure(figsize=(11, 3.6), layout="constrained")
        loss, macro_f1, ranking = figure.subplots(1, 3)
        draw_epochs(loss, history, "held_out_loss", "train_loss")
        draw_epochs(macro_f1, history, "held_out_macro_f1")
        draw_epochs(ranking, history, "held_out_mean_average_precision")
        loss.set_title("Loss", loc="left")
        macro_f1.set_title("Macro-F1, at the label frequencies of training", loc="left")
        ranking.set_title("Mean average precision", loc="left")
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure


def draw_label_scores(labels: pd.DataFrame, confidence: float) -> Figure:
    """F1 of each label with its confidence interval, the best on top, beside the number of positive samples.

    Labels without a sample are left out.

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
        # The reason why a dot can lie near the lower end of its interval.
        bias = "shifted upwards, because F1 of few positives is biased downwards"
        scores.set_xlabel(f"out-of-fold F1 with {confidence:.0%} interval\n({bias})")
        amounts.set_xlabel("positive samples")
        figure.suptitle("F1 by label", x=0.01, ha="left", fontweight="bold")
    return figure


def draw_fold_balance(positives: pd.DataFrame) -> Figure:
    """Positives of each label in each fold, coloured by the deviation from an even split.

    Labels without a sample are left out.

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
    """Precision-recall curves of the labels that occur, each with the point of the decisions.

    Args:
        curves: label, recall and precision, a row per label and threshold.
        labels: label, name, positives, precision and recall, a row per label.
    """
    present = labels[labels["positives"] > 0]
    rows = -(-len(present) // COLUMNS)
    with rc_context(STYLE):
        height = 0.9 + 1.7 * rows
        figure = Figure(figsize=(1.7 * COLUMNS, height))
        grid = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
        # Not the constrained layout, which takes a second for so many axes.
        figure.subplots_adjust(0.03, 0.3 / height, 0.99, 1 - 0.6 / height, wspace=0.25, hspace=0.35)
        for axes, (_, label) in zip(grid, present.iterrows(), strict=False):
            curve = curves[curves["label"] == label["label"]]
            draw_precision_recall(axes, curve, (label["recall"], label["precision"]))
            axes.set_title(label["name"], fontsize=7, loc="left")
        for axes in grid[len(present) :]:
            axes.set_axis_off()
        figure.suptitle("Precision against recall (dots: the decisions)", x=0.01, ha="left", fontweight="bold")
    return figure
