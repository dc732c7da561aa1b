"""The sections on scores: overall, by label, and learning curves."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from pipeline.core.labels import LABELS
from pipeline.reporting.blocks import (
    BIAS_NOTE,
    SIMULATED,
    Block,
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
    simulated,
)
from pipeline.reporting.charts import draw_epochs, draw_intervals, draw_precision_recall, panel, to_svg
from pipeline.reporting.finished_run import FinishedRun

BASELINES = {
    "majority": "most frequent label",
    "all_positive": "all labels",
    "prior": "random labels",
}
"""Baselines that use no image, and their names."""

COLUMNS = ("label", "positives", "groups", "precision", "recall", "F1", "interval", "threshold", "average precision")
SUBMISSION_COLUMNS = ("handed in (UTC)", "commit", "cross-validated", "interval", "public", "private", "models")
FEW = 10
"""Positives below which the F1 of a label is unreliable."""

RECONSTRUCTED = {
    "denoise": "the image from one with noise",
    "masked": "hidden patches from the rest of the image",
    "protein": "the protein from the reference stains",
}
"""What each objective of pre-training reconstructs."""

LEVEL = 1.02
"""A loss within this factor of the lowest one counts as equally good."""


def score_section(run: FinishedRun) -> PageSection:
    """The most important scores, what to conclude from them, and all scores with their intervals."""
    metrics, sources = run.metrics, run.params.data.sources
    confidence = metrics["confidence"]
    tiles = [
        ("macro-F1, out-of-fold", format_score(metrics["macro_f1"]), _remark(metrics, confidence, sources)),
        (
            "mean over folds",
            format_score(metrics["fold_mean"]),
            f"{len(metrics['folds'])} folds, SD {metrics['fold_sd']:.3f}",
        ),
    ]
    if test := metrics.get("test"):
        tiles.append(("macro-F1, test set", format_score(test["macro_f1"]), _remark(test, confidence, sources[:1])))
    tiles.append(("best baseline", format_score(max(metrics["baselines"].values())), _best_baseline(metrics)))
    table = score_rows(run)
    picture = panel(lambda axes: draw_intervals(axes, table), 3.6, 0.5 + 0.24 * len(table))
    drawing = to_svg(picture, "Macro-F1 with confidence intervals: out-of-fold, test set, folds and baselines")
    blocks: list[Block] = [Tiles(tiles, verdict(metrics, sources)), Pictures([drawing], scores_caption(metrics))]
    return PageSection("score", "Score", [*blocks, *submissions_table(run.submissions)])


def submissions_table(submissions: pd.DataFrame) -> list[Table]:
    """Kaggle's scores of what was handed in beside those of cross-validation; nothing if nothing was handed in."""
    if submissions.empty:
        return []
    rows = [
        [
            TableCell(row["time"]),
            TableCell(row["commit"]),
            *number_cells([row["macro_f1"]]),
            TableCell(format_interval(row["macro_f1_low"], row["macro_f1_high"]), row["macro_f1_high"]),
            *number_cells([row["public"], row["private"]], decimals=5),
            TableCell(row["message"].partition(";")[0]),
        ]
        for row in submissions[::-1].to_dict("records")
    ]
    return [Table(SUBMISSION_COLUMNS, rows, submissions_caption(submissions))]


def submissions_caption(submissions: pd.DataFrame) -> str:
    """Whether Kaggle's score of the last submission is in the range that cross-validation gave."""
    last = submissions.iloc[-1]
    shown = [name for name in ("private", "public") if not np.isnan(last[name])]
    if not shown:
        verdict = "Kaggle shows no score of the last submission."
    else:
        score, low, high = last[shown[0]], last["macro_f1_low"], last["macro_f1_high"]
        side = "within" if low <= score <= high else "above" if score > high else "below"
        verdict = (
            f"The {shown[0]} score of the last submission, {format_score(score)}, is {side} the interval that "
            f"cross-validation had given, {format_interval(low, high)}."
        )
    return (
        f"Submissions to Kaggle, the latest first, with the cross-validated macro-F1 of the run then. {verdict} "
        "Submissions are of models averaged over all folds, which tend to score higher than the single-fold models of "
        "cross-validation, and the test images are not a random part of the same images."
    )


def score_rows(run: FinishedRun) -> pd.DataFrame:
    """Name, estimate and ends of the interval of each score."""
    metrics = run.metrics
    rows = [("out-of-fold", *_ends(metrics))]
    if "test" in metrics:
        rows += [
            ("test, single fold", *_ends(metrics["test_as_held_out"])),
            ("test, all folds", *_ends(metrics["test"])),
        ]
    rows += [(f"fold {row['fold']}", *_ends(row)) for row in run.tables["folds"].to_dict("records")]
    missing = float("nan")
    rows += [(BASELINES[name], score, missing, missing) for name, score in metrics["baselines"].items()]
    return pd.DataFrame(rows, columns=["name", "estimate", "low", "high"])


def scores_caption(metrics: dict[str, Any]) -> str:
    """What each row of the plot is."""
    test = (
        "on the test set (single fold: single-fold models, comparable with cross-validation; all folds: models "
        "averaged over folds, as submitted), "
    )
    return (
        f"Macro-F1 with {metrics['confidence']:.0%} intervals: out-of-fold, {test if 'test' in metrics else ''}on each "
        "fold, and of three baselines that use no image (predict the most frequent label, all labels, or random labels "
        "by frequency). The intervals are from resampling groups, because samples of one antibody are not independent. "
        f"{BIAS_NOTE}"
    )


def verdict(metrics: dict[str, Any], sources: Sequence[str]) -> str:
    """What to conclude from the scores."""
    best = max(metrics["baselines"].values())
    above = metrics["macro_f1_low"] > best
    samples = count_noun(metrics["samples"], f"{simulated(sources)}sample")
    sentences = [
        f"On {samples} of {count_noun(metrics['groups'], 'group')}, out-of-fold macro-F1 is "
        f"{format_score(metrics['macro_f1'])} (interval {format_interval(*_ends(metrics)[1:])}). No sample was used to "
        "fit the models or the decision rule that predict it. "
        + (
            f"The interval is above {format_score(best)}, the best baseline that uses no image."
            if above
            else f"The interval is not above {format_score(best)}, the best baseline that uses no image: this run does "
            "not show that anything was learned."
        )
    ]
    if metrics["labels_present"] < len(LABELS):
        sentences.append(
            f"Labels without a sample count as 0; over the {metrics['labels_present']} labels that occur, macro-F1 is "
            f"{format_score(metrics['macro_f1_present'])}."
        )
    if "test" in metrics:
        sentences.append(_transfer(metrics))
    if SIMULATED in sources:
        sentences.append(
            f"The source “{SIMULATED}” is simulated: its scores show that the pipeline works, not how well it does on "
            "real cells."
        )
    return " ".join(sentences)


def _transfer(metrics: dict[str, Any]) -> str:
    score, low, high = (
        metrics["test_as_held_out"]["macro_f1"],
        metrics["expected_test_low"],
        metrics["expected_test_high"],
    )
    expected = f"{format_interval(low, high)}, the range expected by cross-validation for a test set of this size"
    if low <= score <= high:
        verdict = f"within {expected}"
    else:
        side, kind = ("above", "easier") if score > high else ("below", "harder")
        verdict = f"{side} {expected}: it is {kind} than the training samples, or different"
    return (
        "On the test set, single-fold models, which are comparable with cross-validation, score "
        f"{format_score(score)}, {verdict}. The models averaged over all folds score "
        f"{format_score(metrics['test']['macro_f1'])}."
    )


def _ends(scores: Any) -> tuple[float, float, float]:
    return scores["macro_f1"], scores["macro_f1_low"], scores["macro_f1_high"]


def _remark(scores: dict[str, Any], confidence: float, sources: Sequence[str]) -> str:
    samples = count_noun(scores["samples"], f"{simulated(sources)}sample")
    return f"{confidence:.0%} interval {format_interval(*_ends(scores)[1:])}, {samples}"


def _best_baseline(metrics: dict[str, Any]) -> str:
    best = max(metrics["baselines"].values())
    return join_words(BASELINES[name] for name, score in metrics["baselines"].items() if score == best)


def labels_section(run: FinishedRun) -> PageSection:
    """The table of scores by label, and precision-recall curves."""
    labels = run.tables["labels"]
    present = labels[labels["positives"] > 0].sort_values("f1", ascending=False, kind="stable")
    return PageSection(
        "labels",
        "Scores by label",
        [
            Table(COLUMNS, [row_cells(row) for _, row in labels.iterrows()], table_caption(present)),
            precision_recall(run.tables["pr_curves"], present),
        ],
    )


def row_cells(row: "pd.Series[float]") -> list[TableCell]:
    """The row of one label."""
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
    """The best and the worst label, and how uncertain the scores are."""
    best, worst = present.iloc[0], present.iloc[-1]
    few = int((present["positives"] < FEW).sum())
    widths = present["f1_high"] - present["f1_low"]
    text = (
        f"Click a column header to sort; “interval” sorts by width. {best['name']} has the highest F1 "
        f"({format_score(best['f1'])}), {worst['name']} the lowest ({format_score(worst['f1'])}). The median width of "
        f"the intervals is {widths.median():.2f}, so labels with overlapping intervals can hardly be ranked. "
        f"{BIAS_NOTE}"
    )
    if few:
        text += f" For labels with fewer than {FEW} positives ({few} here), F1 depends strongly on single samples."
    return text


def precision_recall(curves: pd.DataFrame, present: pd.DataFrame) -> Pictures:
    """A precision-recall curve for each label, with the point of its decisions."""
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
        "Precision (vertical) against recall (horizontal) over all thresholds. The dot is the decisions, whose "
        "thresholds were chosen on the other folds. The best thresholds in hindsight would increase the mean F1 by "
        f"{np.mean(list(losses.values())):.3f}, most for {worst} ({losses[worst]:.3f}); any further gain needs a "
        "better ranking of the samples.",
    )


def training_section(run: FinishedRun) -> PageSection:
    """Learning curves of each model and fold."""
    history = run.tables["history"]
    parts = {
        "Loss": ("held_out_loss", "train_loss"),
        "Macro-F1 at the label frequencies of training": ("held_out_macro_f1", None),
        "Mean average precision": ("held_out_mean_average_precision", None),
    }
    drawings = []
    for title, (held_out, training) in parts.items():
        picture = panel(partial(draw_epochs, history=history, held_out=held_out, training=training), 3.6, 2.7, title)
        drawings.append(to_svg(picture, f"{title} by epoch, for each model and fold"))
    blocks = [Pictures(drawings, training_caption(history))]
    if run.pretraining:
        blocks.append(pretraining_pictures(run.pretraining, run.params.pretrain.objective))
    return PageSection("training", "Learning curves", blocks)


def pretraining_pictures(curves: dict[str, pd.DataFrame], objective: str) -> Pictures:
    """The learning curves of pre-training without labels."""
    tables = [
        curve.assign(model=model, fold=0, error=curve["loss"] / curve["mean_loss"]) for model, curve in curves.items()
    ]
    title = "Error of the reconstruction"

    def draw(axes: Axes) -> None:
        draw_epochs(axes, pd.concat(tables), "error")
        axes.legend(loc="upper right", fontsize=8)

    drawing = to_svg(panel(draw, 3.6, 2.7, title), f"{title} by epoch of pre-training, for each model")
    return Pictures([drawing], pretraining_caption(curves, objective))


def pretraining_caption(curves: dict[str, pd.DataFrame], objective: str) -> str:
    """How well each autoencoder reconstructs, and what its encoder has seen."""
    sentences = [
        f"Pre-training without labels ({RECONSTRUCTED[objective]}): the squared error, as a share of that of "
        "predicting each channel's mean, on images that are trained on too."
    ]
    for model, curve in curves.items():
        errors = (curve["loss"] / curve["mean_loss"]).to_numpy()
        level = int((errors <= LEVEL * errors.min()).argmax())
        course = "was still falling at the end" if level == len(errors) - 1 else f"levelled off after epoch {level + 1}"
        sentences.append(f"That of {model} {course} (last value {format_score(errors[-1])}).")
    sentences.append(
        "The encoders have seen all images, those of held-out folds and of the test set included, but no label: scores "
        "of models that start from them are those of transductive learning, and other images may score lower."
    )
    return " ".join(sentences)


def training_caption(history: pd.DataFrame) -> str:
    """The course of each model's held-out loss."""
    sentences = [
        "Thin lines are folds, thick lines their mean. For macro-F1, each label is predicted as often as it occurs in "
        "training, so that no threshold is fitted."
    ]
    for model, curves in history.groupby("model", sort=False):
        losses = curves.groupby("epoch")[["train_loss", "held_out_loss"]].mean().dropna()
        epochs, held_out = losses.index.to_numpy() + 1, losses["held_out_loss"].to_numpy()
        end, least = held_out[-1], held_out.min()
        level = int((held_out <= LEVEL * least).argmax())
        if len(held_out) == 1:
            course = "was evaluated once"
        elif end > LEVEL * least:
            lowest = epochs[held_out.argmin()]
            course = f"was lowest after epoch {lowest} and then rose by {end / least - 1:.0%}: it overfits"
        elif level == len(held_out) - 1:
            course = "was still falling at the end: more epochs may help"
        else:
            course = f"levelled off after epoch {epochs[level]}: more epochs would add little"
        sentences.append(
            f"The held-out loss of {model} {course} (last value {format_score(end)}, training loss "
            f"{format_score(losses['train_loss'].iloc[-1])})."
        )
    return " ".join(sentences)
