"""The sections on decisions: settings compared, calibration, confused labels, the worst errors, examples with maps."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from pipeline.core import paths
from pipeline.core.errors import InputError
from pipeline.core.labels import LABELS
from pipeline.reporting.blocks import (
    Card,
    Cards,
    Overlay,
    PageSection,
    Pictures,
    Table,
    TableCell,
    count_noun,
    format_score,
    join_words,
    label_names,
    number_cells,
)
from pipeline.reporting.charts import draw_calibration, draw_heat_map, panel, to_svg
from pipeline.reporting.finished_run import FinishedRun

CHOICES = (
    ("policies", "policy", "threshold policy"),
    ("blends", "blend", "blend"),
    ("calibrations", "calibration", "calibration"),
)
"""For each setting compared: its table, the column of values, and the name to show."""

PAIRS = 10
"""Pairs of confused labels that are listed."""

SHOWN = {
    "query": "attention of the label's query",
    "gradient": "gradient",
    "cam": "class activation",
    "occlusion": "occlusion",
}
"""Kinds of map that are specific to a label, and their names."""


def policies_section(run: FinishedRun) -> PageSection:
    """Cross-fitted scores of the alternatives for each setting, and of the models."""
    blended = run.tables["blend"].sort_values("macro_f1", ascending=False, kind="stable")
    weights = [
        [TableCell(row["model"]), *number_cells([row["weight"], row["macro_f1"]])] for _, row in blended.iterrows()
    ]
    return PageSection(
        "policies",
        "Decision rule",
        [
            *(compared_choices(run, *choice) for choice in CHOICES),
            Table(("model", "weight", "macro-F1 alone"), weights, blend_caption(run, blended)),
        ],
    )


def compared_choices(run: FinishedRun, name: str, column: str, what: str) -> Table:
    """The scores of all values of one setting, the best on top; the other settings are unchanged."""
    table = run.tables[name].sort_values("macro_f1", ascending=False, kind="stable")
    rows = [
        [
            TableCell(row[column].replace("_", " ") + (" (used)" if row["chosen"] else "")),
            *number_cells([row["macro_f1"]]),
            *number_cells([row["labels_per_sample"]], decimals=2),
            *number_cells([row["calibration_error"]]),
        ]
        for _, row in table.iterrows()
    ]
    return Table((what, "macro-F1", "labels per sample", "calibration error"), rows, choice_caption(run, table, column))


def choice_caption(run: FinishedRun, table: pd.DataFrame, column: str) -> str:
    """How far the best value is ahead of the one used, compared with the confidence interval."""
    best, used = table.iloc[0], table[table["chosen"]].iloc[0]
    gap = best["macro_f1"] - used["macro_f1"]
    half_width = (run.metrics["macro_f1_high"] - run.metrics["macro_f1_low"]) / 2
    if gap <= 0:
        text = "The setting used scores highest"
    else:
        text = f"“{best[column].replace('_', ' ')}” scores {gap:.3f} higher than the setting used"
        comparison = "less" if gap < half_width else "more"
        text += f", {comparison} than half the width of the confidence interval ({half_width:.3f})"
    true_mean = run.truth.sum(axis=1).mean()
    return f"{text}. All scores are cross-fitted. Samples have {true_mean:.2f} true labels on average."


def blend_caption(run: FinishedRun, blended: pd.DataFrame) -> str:
    """The gain of the blend over the best single model."""
    best = blended.iloc[0]
    if len(blended) == 1:
        return f"There is one model, {best['model']}, so nothing is blended."
    gain = run.metrics["macro_f1"] - best["macro_f1"]
    idle = blended.loc[blended["weight"] == 0, "model"].tolist()
    side = "above" if gain >= 0 else "below"
    text = f"The blend scores {format_score(run.metrics['macro_f1'])}, {abs(gain):.3f} {side} {best['model']} alone."
    return text + (f" {join_words(idle)} did not help and got no weight." if idle else "")


def calibration_section(run: FinishedRun) -> PageSection:
    """The reliability diagram of the probabilities."""
    table = run.tables["calibration"]
    bins = {str(name): bins for name, bins in table.groupby("probabilities", sort=False)}
    drawing = to_svg(panel(lambda axes: draw_calibration(axes, bins), 3.6, 3.4), "Share of positives by probability")
    return PageSection("calibration", "Calibration", [Pictures([drawing], calibration_caption(bins))])


def calibration_caption(bins: dict[str, pd.DataFrame]) -> str:
    """The calibration error, and whether probabilities are too high or too low."""
    sentences = ["Points on the diagonal are well calibrated. Larger points contain more (sample, label) pairs."]
    for name, table in bins.items():
        filled = table[table["n"] > 0]
        gaps = filled["confidence"] - filled["observed"]
        error = float((gaps.abs() * filled["n"]).sum() / filled["n"].sum())
        side = "too high" if (gaps * filled["n"]).sum() > 0 else "too low"
        sentences.append(
            f"{name.capitalize()}, the expected calibration error is {error:.3f}, and probabilities are mostly {side}."
        )
    return " ".join(sentences)


def confusions_section(run: FinishedRun) -> PageSection:
    """Which labels are missed where which others are wrongly predicted."""
    pairs = run.tables["confusions"].sort_values("count", ascending=False, kind="stable")
    matrix = np.zeros((len(LABELS), len(LABELS)))
    matrix[pairs["label_true"], pairs["label_predicted"]] = pairs["count"]
    positives = run.truth.sum(axis=0)
    shares = matrix / np.maximum(positives, 1)[:, None]
    kept = np.flatnonzero((positives > 0) | (matrix.sum(axis=0) > 0))
    kept_names = [LABELS[label] for label in kept]
    height = 2.1 + 0.21 * len(kept)
    picture = panel(
        lambda axes: draw_heat_map(axes, 2 * shares[np.ix_(kept, kept)], None, kept_names, kept_names), 7.2, height
    )
    rows = [
        [
            TableCell(LABELS[int(row["label_true"])]),
            TableCell(LABELS[int(row["label_predicted"])]),
            *number_cells([row["count"]], decimals=0),
            *number_cells([100 * shares[int(row["label_true"]), int(row["label_predicted"])]], decimals=0),
        ]
        for _, row in pairs.head(PAIRS).iterrows()
    ]
    return PageSection(
        "confusions",
        "Confused labels",
        [
            Pictures(
                [to_svg(picture, "Labels predicted in place of missed ones")],
                "Rows: labels that were missed. Columns: labels wrongly predicted for the same sample. The colour is "
                f"the share of the row's positive samples; it is darkest from one half. {confusions_caption(pairs)}",
            ),
            Table(
                ("missed", "predicted instead", "samples", "% of positives"),
                rows,
                f"The {len(rows)} most frequent pairs.",
            ),
        ],
    )


def confusions_caption(pairs: pd.DataFrame) -> str:
    """The most frequent pair."""
    if pairs.empty:
        return "No label is missed where another is wrongly predicted."
    worst = pairs.iloc[0]
    return (
        f"Most often {LABELS[int(worst['label_true'])]} is missed where {LABELS[int(worst['label_predicted'])]} is "
        f"wrongly predicted, in {count_noun(int(worst['count']), 'sample')}."
    )


def errors_section(run: FinishedRun) -> PageSection:
    """The most confident wrong decisions."""
    errors = run.tables["examples"].query("kind == 'error'")
    cards = [card(run, row["id"], int(row["label"]), with_truth=True) for _, row in errors.iterrows()]
    return PageSection("errors", "Worst errors", [Cards(cards, f"{errors_caption(run, errors)} {maps_caption(run)}")])


def attention_section(run: FinishedRun) -> PageSection:
    """The positive samples with the highest and the lowest probability of each label."""
    examples = run.tables["examples"]
    chosen = examples[examples["kind"] != "error"]
    cards = [card(run, row["id"], int(row["label"]), prefix=f"{row['kind']}: ") for _, row in chosen.iterrows()]
    return PageSection(
        "attention",
        "Best and worst examples",
        [Cards(cards, f"{attention_caption(run, chosen)} {maps_caption(run)}", paired=True)],
    )


def card(run: FinishedRun, sample: str, label: int, *, prefix: str = "", with_truth: bool = False) -> Card:
    """A sample with its probability of a label, and the attention maps for that label."""
    position = run.positions[sample]
    missed = run.truth[position, label]
    title = (
        f"{'Missed' if missed else 'Wrongly predicted'}: {LABELS[label]}" if with_truth else f"{prefix}{LABELS[label]}"
    )
    lines = [f"probability {run.held_out.probabilities[position, label]:.2f}"]
    if with_truth:
        lines += [
            f"true: {label_names(run.truth[position])}",
            f"predicted: {label_names(run.held_out.decisions[position])}",
        ]
    return Card(run.sample(position), title, lines, overlays(run, sample, label))


def overlays(run: FinishedRun, sample: str, label: int) -> Sequence[Overlay]:
    """The maps of one (sample, label) pair.

    Raises:
        InputError: there are none, because the maps were computed for other examples.
    """
    rows = ((run.maps.ids == sample) & (run.maps.labels == label)).nonzero()[0]
    if not len(rows):
        path = paths.maps(run.best_model)
        raise InputError(
            f"{path} has no map of {sample} for {LABELS[label]}: run the explain stage of this model again"
        )
    of_kind = dict(zip(run.maps.names.tolist(), run.maps.maps[rows[0]], strict=True))
    return [Overlay(name, of_kind[kind]) for kind, name in SHOWN.items() if kind in of_kind]


def maps_caption(run: FinishedRun) -> str:
    """Which model and which kinds of map are shown."""
    kinds = join_words(SHOWN[kind] for kind in SHOWN if kind in run.maps.names)
    return (
        "Beside each sample: its protein channel, orange where it contributes to the label according to the best "
        f"single model, {run.best_model}, trained without the sample ({kinds}). It is gray if nothing contributes."
    )


def errors_caption(run: FinishedRun, errors: pd.DataFrame) -> str:
    """How many of the worst errors are missed labels, and which label is most often involved."""
    if errors.empty:
        return "No decision is wrong."
    missed = sum(run.truth[run.positions[row["id"]], row["label"]] for _, row in errors.iterrows())
    label, times = Counter(LABELS[label] for label in errors["label"]).most_common(1)[0]
    text = (
        f"The {len(errors)} most confident wrong decisions, at most one per group: "
        f"{count_noun(int(missed), 'missed label')}, {count_noun(len(errors) - int(missed), 'false positive')}."
    )
    if times > 1:
        text += f" {times} of them concern {label}."
    return text + " An annotation error looks like an error of the models; the next section lists likely ones."


def attention_caption(run: FinishedRun, chosen: pd.DataFrame) -> str:
    """The median probabilities of the best and the worst examples."""
    probabilities = [run.held_out.probabilities[run.positions[row["id"]], row["label"]] for _, row in chosen.iterrows()]
    by_kind = chosen.assign(probability=probabilities).groupby("kind")["probability"].median()
    if "worst" not in by_kind:
        return "Samples that have the label."
    return (
        "For each label, the positive samples with its highest (best) and its lowest (worst) predicted probability. "
        f"The medians over the labels are {by_kind['best']:.2f} and {by_kind['worst']:.2f}."
    )
