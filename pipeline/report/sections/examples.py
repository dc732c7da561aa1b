"""Samples to look at: the gravest errors, and the best and the worst of each label, with where the model looked."""

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from pipeline import paths
from pipeline.errors import InputError
from pipeline.labels import LABELS
from pipeline.report.blocks import Card, Cards, Overlay, Section
from pipeline.report.run import Run
from pipeline.report.words import counted, listed, names

SHOWN = {"grad_cam": "Grad-CAM", "query": "the label's query", "occlusion": "occlusion"}
"""Kinds of map that are about one label, and what they are called."""


def errors_section(run: Run) -> Section:
    """The wrong decisions that were most certain."""
    errors = run.tables["examples"].query("kind == 'error'")
    cards = [card(run, row["id"], int(row["label"]), with_truth=True) for _, row in errors.iterrows()]
    return Section("errors", "Worst errors", [Cards(cards, f"{errors_caption(run, errors)} {looked_at(run)}")])


def attention_section(run: Run) -> Section:
    """The most and the least probable sample of each label."""
    examples = run.tables["examples"]
    chosen = examples[examples["kind"] != "error"]
    cards = [card(run, row["id"], int(row["label"]), prefix=f"{row['kind']}: ") for _, row in chosen.iterrows()]
    return Section(
        "attention", "Best and worst", [Cards(cards, f"{attention_caption(run, chosen)} {looked_at(run)}", paired=True)]
    )


def card(run: Run, sample: str, label: int, *, prefix: str = "", with_truth: bool = False) -> Card:
    """A sample with its probability of the label, and the maps for it."""
    position = run.positions[sample]
    missed = run.truth[position, label]
    title = f"{'Missed' if missed else 'Wrongly given'}: {LABELS[label]}" if with_truth else f"{prefix}{LABELS[label]}"
    lines = [f"probability {run.held_out.probabilities[position, label]:.2f}"]
    if with_truth:
        lines += [f"truth: {names(run.truth[position])}", f"given: {names(run.held_out.decisions[position])}"]
    return Card(run.sample(position), title, lines, overlays(run, sample, label))


def overlays(run: Run, sample: str, label: int) -> Sequence[Overlay]:
    """The maps of one pair of sample and label.

    Raises:
        InputError: there are none: the maps are those of other examples.
    """
    rows = ((run.maps.ids == sample) & (run.maps.labels == label)).nonzero()[0]
    if not len(rows):
        path = paths.maps(run.best_model)
        raise InputError(
            f"{path} has no map of {sample} for {LABELS[label]}: run the explain stage of this model again"
        )
    of_kind = dict(zip(run.maps.names.tolist(), run.maps.maps[rows[0]], strict=True))
    return [Overlay(name, of_kind[kind]) for kind, name in SHOWN.items() if kind in of_kind]


def looked_at(run: Run) -> str:
    """Which model drew the maps."""
    kinds = listed(SHOWN[kind] for kind in SHOWN if kind in run.maps.names)
    return (
        f"Beside it the protein, orange where {run.best_model}, the best model alone, looked for the label ({kinds}), "
        "by the weights that did not train on the sample; plain gray where nothing spoke for it."
    )


def errors_caption(run: Run, errors: pd.DataFrame) -> str:
    """What kind of error is the gravest."""
    if errors.empty:
        return "No decision is wrong."
    missed = sum(run.truth[run.positions[row["id"]], row["label"]] for _, row in errors.iterrows())
    label, times = Counter(LABELS[label] for label in errors["label"]).most_common(1)[0]
    text = (
        f"The {len(errors)} wrong decisions farthest from the truth: {counted(int(missed), 'missed label')}, "
        f"{counted(len(errors) - int(missed), 'false alarm')}."
    )
    if times > 1:
        text += f" {label} is behind {times} of them."
    return text + " Look here for wrong annotations first: an error of the truth looks just like one of the model."


def attention_caption(run: Run, chosen: pd.DataFrame) -> str:
    """How far apart the best and the worst are."""
    probabilities = [run.held_out.probabilities[run.positions[row["id"]], row["label"]] for _, row in chosen.iterrows()]
    by_kind = chosen.assign(probability=probabilities).groupby("kind")["probability"].median()
    if "worst" not in by_kind:
        return "Samples that have the label."
    return (
        "Of the samples that truly have a label, the one with the highest and the one with the lowest probability of "
        f"it; the medians over the labels are {by_kind['best']:.2f} and {by_kind['worst']:.2f}."
    )
