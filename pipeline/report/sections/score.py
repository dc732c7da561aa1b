"""What the run scores, and how far to trust it."""

from typing import Any

import pandas as pd

from pipeline.labels import LABELS
from pipeline.report.blocks import Pictures, Section, Tiles
from pipeline.report.charts.rows import draw_intervals
from pipeline.report.charts.theme import panel, to_svg
from pipeline.report.run import Run
from pipeline.report.words import counted, figure, listed, within

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


def score_section(run: Run) -> Section:
    """The figures to read first."""
    metrics = run.metrics
    tiles = [
        ("macro-F1, held out", figure(metrics["macro_f1"]), _interval(metrics, metrics["confidence"])),
        (
            "by fold",
            figure(metrics["fold_mean"]),
            f"mean of {len(metrics['folds'])} folds, SD {metrics['fold_sd']:.3f}",
        ),
    ]
    if test := metrics.get("test"):
        tiles.append(("test set", figure(test["macro_f1"]), _interval(test, metrics["confidence"])))
    tiles.append(("without looking", figure(max(metrics["baselines"].values())), _best_baseline(metrics)))
    table = compared(run)
    picture = panel(lambda axes: draw_intervals(axes, table), 3.6, 0.5 + 0.24 * len(table))
    drawing = to_svg(picture, "Macro-F1 with its interval, in all, by fold and of the baselines")
    return Section(
        "score", "Score", [Tiles(tiles, verdict(metrics, run.params.data.sources)), Pictures([drawing], CAPTION)]
    )


def compared(run: Run) -> pd.DataFrame:
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
        f"Over {counted(metrics['samples'], 'sample')} of {counted(metrics['groups'], 'group')}, each decided by "
        f"models and thresholds that never saw it, macro-F1 is {figure(metrics['macro_f1'])} "
        f"({within(*_ends(metrics)[1:])}). "
        + (
            f"The interval lies above {figure(best)}, the best that no image is needed for."
            if above
            else f"The interval does not lie above {figure(best)}, which no image is needed for: nothing is shown to "
            "be learned."
        )
    ]
    if metrics["labels_present"] < len(LABELS):
        sentences.append(
            f"Labels that no sample has count 0; over the {metrics['labels_present']} that occur it is "
            f"{figure(metrics['macro_f1_present'])}."
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
    expected = f"{within(low, high)}, the range expected of a test set of this size"
    if low <= score <= high:
        verdict = f"in {expected}: cross-validation foretold it"
    else:
        side, kind = ("above", "easier") if score > high else ("below", "harder")
        verdict = f"{side} {expected}: it is {kind} than the training samples, or other"
    return (
        f"The test set, decided as held-out samples are, reads {figure(score)}, {verdict}. By the average of all "
        f"folds' networks it reads {figure(metrics['test']['macro_f1'])}."
    )


def _ends(scores: Any) -> tuple[float, float, float]:
    return scores["macro_f1"], scores["macro_f1_low"], scores["macro_f1_high"]


def _interval(scores: dict[str, Any], confidence: float) -> str:
    return f"{confidence:.0%} interval {within(*_ends(scores)[1:])}, n = {scores['samples']:,}"


def _best_baseline(metrics: dict[str, Any]) -> str:
    best = max(metrics["baselines"].values())
    return listed(BASELINES[name] for name, score in metrics["baselines"].items() if score == best)
