"""How well each location is found."""

from functools import partial

import numpy as np
import pandas as pd

from pipeline.report.blocks import Cell, Pictures, Section, Table
from pipeline.report.charts.curves import draw_precision_recall
from pipeline.report.charts.theme import panel, to_svg
from pipeline.report.run import Run
from pipeline.report.words import counted, figure, numbers, within

COLUMNS = ("label", "positives", "groups", "precision", "recall", "F1", "interval", "threshold", "average precision")
FEW = 10
"""Positives below which a label's F1 says little."""


def labels_section(run: Run) -> Section:
    """The table of labels, F1 at a glance, and precision against recall."""
    labels = run.tables["labels"]
    present = labels[labels["positives"] > 0].sort_values("f1", ascending=False, kind="stable")
    return Section(
        "labels",
        "Labels",
        [
            Table(COLUMNS, [row_cells(row) for _, row in labels.iterrows()], table_caption(present)),
            precision_recall(run.tables["pr_curves"], present),
        ],
    )


def row_cells(row: "pd.Series[float]") -> list[Cell]:
    """A label's row of the table."""
    return [
        Cell(str(row["name"])),
        *numbers([row["positives"], row["groups"]], decimals=0),
        *numbers([row["precision"], row["recall"], row["f1"]]),
        Cell(
            within(row["f1_low"], row["f1_high"]),
            row["f1_high"] - row["f1_low"],
            (row["f1_low"], row["f1"], row["f1_high"]),
        ),
        *numbers([row["threshold"], row["average_precision"]]),
    ]


def table_caption(present: pd.DataFrame) -> str:
    """Which labels are found and how many can be judged."""
    best, worst = present.iloc[0], present.iloc[-1]
    few = int((present["positives"] < FEW).sum())
    widths = present["f1_high"] - present["f1_low"]
    text = (
        f"Click a column's head to sort; “interval” sorts by its width. {best['name']} is found best (F1 "
        f"{figure(best['f1'])}), {worst['name']} worst ({figure(worst['f1'])}). The median interval is "
        f"{widths.median():.2f} wide: two labels whose bars overlap by much cannot be told apart. "
    )
    if few:
        text += f"{counted(few, 'label')} with fewer than {FEW} positives: a single sample moves such an F1 a lot."
    return text


def precision_recall(curves: pd.DataFrame, present: pd.DataFrame) -> Pictures:
    """A small curve for each label, with the point of its decisions."""
    drawings, losses = [], {}
    for _, label in present.iterrows():
        curve = curves[curves["label"] == label["label"]]
        draw = partial(draw_precision_recall, curve=curve, chosen=(label["recall"], label["precision"]))
        picture = panel(draw, 1.7, 1.6, label["name"])
        drawings.append(to_svg(picture, f"Precision against recall of {label['name']}"))
        f1 = 2 * curve["precision"] * curve["recall"] / (curve["precision"] + curve["recall"]).clip(1e-9)
        losses[label["name"]] = float(f1.max() - label["f1"])
    worst = max(losses, key=losses.__getitem__)
    return Pictures(
        drawings,
        "Precision (upwards) against recall for every threshold; the dot is where the decisions are, by thresholds "
        f"chosen on the other folds. In hindsight the best thresholds would add {np.mean(list(losses.values())):.3f} "
        f"to the mean F1, most to {worst} ({losses[worst]:.3f}): what is beyond that, only a better ranking can give.",
    )
