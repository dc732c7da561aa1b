"""From probabilities to decisions: policies, blend, calibration, and which labels are taken for which."""

import numpy as np
import pandas as pd

from pipeline.labels import LABELS
from pipeline.report.blocks import Cell, Pictures, Section, Table
from pipeline.report.charts.curves import draw_calibration
from pipeline.report.charts.heat import draw_heat_map
from pipeline.report.charts.theme import panel, to_svg
from pipeline.report.run import Run
from pipeline.report.words import counted, figure, listed, numbers

CHOICES = (
    ("policies", "policy", "threshold policy"),
    ("blends", "blend", "blend"),
    ("calibrations", "calibration", "calibration"),
)
"""The tables of settings compared, the column of their names, and what they set."""

PAIRS = 10
"""Confusions listed by name."""


def policies_section(run: Run) -> Section:
    """The choices compared, each by decisions on folds that it had no part in."""
    blended = run.tables["blend"].sort_values("macro_f1", ascending=False, kind="stable")
    weights = [[Cell(row["model"]), *numbers([row["weight"], row["macro_f1"]])] for _, row in blended.iterrows()]
    return Section(
        "policies",
        "Decisions",
        [
            *(compared(run, *choice) for choice in CHOICES),
            Table(("model", "weight", "macro-F1 alone"), weights, blend_caption(run, blended)),
        ],
    )


def compared(run: Run, name: str, column: str, what: str) -> Table:
    """The settings of one choice, the best on top, the others as they are."""
    table = run.tables[name].sort_values("macro_f1", ascending=False, kind="stable")
    rows = [
        [
            Cell(row[column].replace("_", " ") + (" (used)" if row["chosen"] else "")),
            *numbers([row["macro_f1"]]),
            *numbers([row["labels_per_sample"]], decimals=2),
            *numbers([row["calibration_error"]]),
        ]
        for _, row in table.iterrows()
    ]
    return Table((what, "macro-F1", "labels per sample", "calibration error"), rows, choice_caption(run, table, column))


def choice_caption(run: Run, table: pd.DataFrame, column: str) -> str:
    """Which setting is ahead, and whether that can be told."""
    best, used = table.iloc[0], table[table["chosen"]].iloc[0]
    gap = best["macro_f1"] - used["macro_f1"]
    noise = (run.metrics["macro_f1_high"] - run.metrics["macro_f1_low"]) / 2
    if gap <= 0:
        text = "The one used reads highest"
    else:
        text = f"“{best[column].replace('_', ' ')}” reads {gap:.3f} above the one used"
        text += f", {'less' if gap < noise else 'more'} than half the interval of the score (±{noise:.3f})"
    true_mean = run.truth.sum(axis=1).mean()
    return f"{text}. Judged on folds that had no part in the choice; a sample truly has {true_mean:.2f} labels."


def blend_caption(run: Run, blended: pd.DataFrame) -> str:
    """What blending gives over the best model alone."""
    best = blended.iloc[0]
    if len(blended) == 1:
        return f"There is one model, {best['model']}, so nothing is blended."
    gain = run.metrics["macro_f1"] - best["macro_f1"]
    idle = blended.loc[blended["weight"] == 0, "model"].tolist()
    side = "above" if gain >= 0 else "below"
    text = f"The blend reads {figure(run.metrics['macro_f1'])}, {abs(gain):.3f} {side} {best['model']} alone."
    return text + (f" {listed(idle)} added nothing and got no weight." if idle else "")


def calibration_section(run: Run) -> Section:
    """Whether a probability of 0.7 means seven in ten."""
    table = run.tables["calibration"]
    bins = {str(name): bins for name, bins in table.groupby("probabilities", sort=False)}
    drawing = to_svg(panel(lambda axes: draw_calibration(axes, bins), 3.6, 3.4), "Share of positives by probability")
    return Section("calibration", "Calibration", [Pictures([drawing], calibration_caption(bins))])


def calibration_caption(bins: dict[str, pd.DataFrame]) -> str:
    """How far off the probabilities are, and to which side."""
    sentences = [
        "Points on the diagonal are probabilities that can be taken at their word; larger points hold more pairs."
    ]
    for name, table in bins.items():
        filled = table[table["n"] > 0]
        gaps = filled["confidence"] - filled["observed"]
        error = float((gaps.abs() * filled["n"]).sum() / filled["n"].sum())
        side = "too high" if (gaps * filled["n"]).sum() > 0 else "too low"
        sentences.append(
            f"{name.capitalize()}: {error:.3f} off on average (expected calibration error), mostly {side}."
        )
    return " ".join(sentences)


def confusions_section(run: Run) -> Section:
    """Which labels are missed where which others are wrongly given."""
    pairs = run.tables["confusions"].sort_values("count", ascending=False, kind="stable")
    matrix = np.zeros((len(LABELS), len(LABELS)))
    matrix[pairs["label_true"], pairs["label_predicted"]] = pairs["count"]
    positives = run.truth.sum(axis=0)
    shares = matrix / np.maximum(positives, 1)[:, None]
    kept = np.flatnonzero((positives > 0) | (matrix.sum(axis=0) > 0))
    names = [LABELS[label] for label in kept]
    height = 2.1 + 0.21 * len(kept)
    picture = panel(lambda axes: draw_heat_map(axes, 2 * shares[np.ix_(kept, kept)], None, names, names), 7.2, height)
    rows = [
        [
            Cell(LABELS[int(row["label_true"])]),
            Cell(LABELS[int(row["label_predicted"])]),
            *numbers([row["count"]], decimals=0),
            *numbers([100 * shares[int(row["label_true"]), int(row["label_predicted"])]], decimals=0),
        ]
        for _, row in pairs.head(PAIRS).iterrows()
    ]
    return Section(
        "confusions",
        "Mistaken for",
        [
            Pictures(
                [to_svg(picture, "Which label is given where which is missed")],
                "Rows are labels that were missed, columns those given wrongly on the same sample; the tint is the "
                f"share of the row's samples, deepest from one half. {confusions_caption(pairs)}",
            ),
            Table(
                ("missed", "given instead", "samples", "% of the label's"),
                rows,
                f"The {len(rows)} most frequent pairs.",
            ),
        ],
    )


def confusions_caption(pairs: pd.DataFrame) -> str:
    """The pair that costs most."""
    if pairs.empty:
        return "No label is missed where another is wrongly given."
    worst = pairs.iloc[0]
    return (
        f"Most often {LABELS[int(worst['label_true'])]} is missed where {LABELS[int(worst['label_predicted'])]} is "
        f"wrongly given, on {counted(int(worst['count']), 'sample')}."
    )
