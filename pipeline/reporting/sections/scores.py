"""What the run scores, and how far to trust it."""

from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from pipeline.core.labels import LABELS
from pipeline.reporting.blocks import (
    PageSection,
    Pictures,
    Table,
    TableCell,
    Tiles,
    count_noun,
    format_interval,
    format_score,
    join_words,
    number_cells,
)
from pipeline.reporting.charts import draw_epochs, draw_intervals, draw_precision_recall, panel, to_svg
from pipeline.reporting.finished_run import FinishedRun

BASELINES = {
    "majority": "most frequent label",
    "all_positive": "every label",
    "prior": "at random",
}

SIMULATED = "sample"
"""The source whose stage draws its images."""

CAPTION = (
    "Macro-F1: in all, on the test set (as held out: by the networks of one fold, as held-out samples are decided; "
    "and by all), by fold, and of decisions that look at no image (the most frequent label for "
    "all samples, every label for all, labels at random by their frequency). Bars are intervals by resampling "
    "groups, since samples of one antibody stand or fall together."
)


def score_section(run: FinishedRun) -> PageSection:
    """The figures to read first."""
    metrics = run.metrics
    tiles = [
        ("macro-F1, held out", format_score(metrics["macro_f1"]), _interval(metrics, metrics["confidence"])),
        (
            "by fold",
            format_score(metrics["fold_mean"]),
            f"mean of {len(metrics['folds'])} folds, SD {metrics['fold_sd']:.3f}",
        ),
    ]
    if test := metrics.get("test"):
        tiles.append(("test set", format_score(test["macro_f1"]), _interval(test, metrics["confidence"])))
    tiles.append(("without looking", format_score(max(metrics["baselines"].values())), _best_baseline(metrics)))
    table = score_rows(run)
    picture = panel(lambda axes: draw_intervals(axes, table), 3.6, 0.5 + 0.24 * len(table))
    drawing = to_svg(picture, "Macro-F1 with its interval, in all, by fold and of the baselines")
    return PageSection(
        "score", "Score", [Tiles(tiles, verdict(metrics, run.params.data.sources)), Pictures([drawing], CAPTION)]
    )


def score_rows(run: FinishedRun) -> pd.DataFrame:
    """Name, estimate and interval of each score."""
    metrics = run.metrics
    rows = [("all held out", *_ends(metrics))]
    if "test" in metrics:
        rows += [("test, as held out", *_ends(metrics["test_as_held_out"])), ("test set", *_ends(metrics["test"]))]
    rows += [(f"fold {row['fold']}", *_ends(row)) for row in run.tables["folds"].to_dict("records")]
    nothing = float("nan")
    rows += [(BASELINES[name], score, nothing, nothing) for name, score in metrics["baselines"].items()]
    return pd.DataFrame(rows, columns=["name", "estimate", "low", "high"])


def verdict(metrics: dict[str, Any], sources: tuple[str, ...]) -> str:
    """What to conclude from the scores."""
    best = max(metrics["baselines"].values())
    above = metrics["macro_f1_low"] > best
    sentences = [
        f"Over {count_noun(metrics['samples'], 'sample')} of {count_noun(metrics['groups'], 'group')}, each decided by "
        f"models and thresholds that never saw it, macro-F1 is {format_score(metrics['macro_f1'])} "
        f"({format_interval(*_ends(metrics)[1:])}). "
        + (
            f"The interval lies above {format_score(best)}, the best that no image is needed for."
            if above
            else f"The interval does not lie above {format_score(best)}, which needs no image: this run does not show "
            "that anything was learned."
        )
    ]
    if metrics["labels_present"] < len(LABELS):
        sentences.append(
            f"Labels that no sample has count 0; over the {metrics['labels_present']} that occur it is "
            f"{format_score(metrics['macro_f1_present'])}."
        )
    if "test" in metrics:
        sentences.append(_transfer(metrics))
    if SIMULATED in sources:
        sentences.append(
            f"The source “{SIMULATED}” is simulated: its scores say that the pipeline works, not how it would do on "
            "real cells."
        )
    return " ".join(sentences)


def _transfer(metrics: dict[str, Any]) -> str:
    score, low, high = (
        metrics["test_as_held_out"]["macro_f1"],
        metrics["expected_test_low"],
        metrics["expected_test_high"],
    )
    expected = f"{format_interval(low, high)}, the range expected of a test set of this size"
    if low <= score <= high:
        verdict = f"in {expected}: cross-validation foretold it"
    else:
        side, kind = ("above", "easier") if score > high else ("below", "harder")
        verdict = f"{side} {expected}: it is {kind} than the training samples, or other"
    return (
        f"The test set, decided as held-out samples are, reads {format_score(score)}, {verdict}. By the average of all "
        f"folds' networks it reads {format_score(metrics['test']['macro_f1'])}."
    )


def _ends(scores: Any) -> tuple[float, float, float]:
    return scores["macro_f1"], scores["macro_f1_low"], scores["macro_f1_high"]


def _interval(scores: dict[str, Any], confidence: float) -> str:
    return f"{confidence:.0%} interval {format_interval(*_ends(scores)[1:])}, n = {scores['samples']:,}"


def _best_baseline(metrics: dict[str, Any]) -> str:
    best = max(metrics["baselines"].values())
    return join_words(BASELINES[name] for name, score in metrics["baselines"].items() if score == best)


COLUMNS = ("label", "positives", "groups", "precision", "recall", "F1", "interval", "threshold", "average precision")
FEW = 10
"""Positives below which a label's F1 says little."""


def labels_section(run: FinishedRun) -> PageSection:
    """The table of labels, F1 at a glance, and precision against recall."""
    labels = run.tables["labels"]
    present = labels[labels["positives"] > 0].sort_values("f1", ascending=False, kind="stable")
    return PageSection(
        "labels",
        "Labels",
        [
            Table(COLUMNS, [row_cells(row) for _, row in labels.iterrows()], table_caption(present)),
            precision_recall(run.tables["pr_curves"], present),
        ],
    )


def row_cells(row: "pd.Series[float]") -> list[TableCell]:
    """A label's row of the table."""
    return [
        TableCell(str(row["name"])),
        *number_cells([row["positives"], row["groups"]], decimals=0),
        *number_cells([row["precision"], row["recall"], row["f1"]]),
        TableCell(
            format_interval(row["f1_low"], row["f1_high"]),
            row["f1_high"] - row["f1_low"],
            (row["f1_low"], row["f1"], row["f1_high"]),
        ),
        *number_cells([row["threshold"], row["average_precision"]]),
    ]


def table_caption(present: pd.DataFrame) -> str:
    """Which labels are found and how many can be judged."""
    best, worst = present.iloc[0], present.iloc[-1]
    few = int((present["positives"] < FEW).sum())
    widths = present["f1_high"] - present["f1_low"]
    text = (
        f"Click a column's head to sort; “interval” sorts by its width. {best['name']} is found best (F1 "
        f"{format_score(best['f1'])}), {worst['name']} worst ({format_score(worst['f1'])}). The median interval is "
        f"{widths.median():.2f} wide: two labels whose bars overlap by much cannot be told apart. "
    )
    if few:
        text += f"{count_noun(few, 'label')} with fewer than {FEW} positives: a single sample moves such an F1 a lot."
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


LEVEL = 1.02
"""A loss within this factor of the lowest is as good as it."""


def training_section(run: FinishedRun) -> PageSection:
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
    return PageSection("training", "Learning curves", [Pictures(drawings, training_caption(history))])


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
            f"The held-out loss of {model} {course} (ends at {format_score(end)}, training at "
            f"{format_score(losses['train_loss'].iloc[-1])})."
        )
    return " ".join(sentences)
