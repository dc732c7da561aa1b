"""How the samples were divided, and whether anything leaks."""

from collections.abc import Hashable
from typing import Any

import pandas as pd

from pipeline.labels import LABELS, parse_target
from pipeline.report.blocks import Card, Cards, Pictures, Sample, Section
from pipeline.report.charts.theme import to_svg
from pipeline.report.figures import draw_fold_balance
from pipeline.report.run import Run
from pipeline.report.words import counted, figure, listed

PAIRS = 12
"""Duplicates that are shown."""


def folds_section(run: Run) -> Section:
    """The heat map of positives with what the audit found, and the duplicates."""
    positives = pd.DataFrame(run.truth, columns=list(LABELS)).groupby(run.folds["fold"].to_numpy()).sum().T
    drawing = to_svg(draw_fold_balance(positives), "Positive samples by label and fold")
    cards = [card for pair in run.duplicates.head(PAIRS).to_dict("records") for card in pair_cards(run, pair)]
    return Section(
        "folds",
        "Folds",
        [
            Pictures([drawing], f"{folds_caption(run, positives)} {memory_caption(run.metrics['memory'])}"),
            Cards(cards, duplicates_caption(run.duplicates), paired=True),
        ],
    )


def pair_cards(run: Run, pair: dict[Hashable, Any]) -> list[Card]:
    """Both samples of a pair of duplicates."""
    how = "exact" if pair["kind"] == "exact" else f"{pair['distance']} bits apart"
    cards = []
    for side in ("a", "b"):
        source, sample, target = pair[f"source_{side}"], pair[f"id_{side}"], pair[f"target_{side}"]
        row = run.indexes[source].index[run.indexes[source]["id"] == sample][0]
        labels = (
            ", ".join(LABELS[label] for label in parse_target(target)) if isinstance(target, str) else "test sample"
        )
        cards.append(Card(Sample(source, int(row), sample), how, [labels]))
    return cards


def duplicates_caption(duplicates: pd.DataFrame) -> str:
    """How many samples show the same field, and whether their labels agree."""
    if duplicates.empty:
        return "No two samples show the same field of view, by their files and by their perceptual hashes."
    crossing = int((duplicates["split_a"] != duplicates["split_b"]).sum())
    different = int((duplicates["labels"] == "different").sum())
    return (
        f"{counted(len(duplicates), 'pair')} of samples of the same field of view, found by their files or by a "
        f"perceptual hash of 256 bits, and kept in one fold; in {crossing:,} of them one is a test sample. "
        + (
            f"In {different:,} the labels contradict each other, so one of the two must be wrong; these stand first."
            if different
            else "Nowhere do their labels contradict each other."
        )
        + (f" The first {PAIRS} are shown." if len(duplicates) > PAIRS else "")
    )


def folds_caption(run: Run, positives: pd.DataFrame) -> str:
    """Whether the folds leak, and how even they are."""
    leaked = run.audit["held_out_share_with_group_in_training"]
    imbalance = run.audit["imbalance"]
    sizes = [f"{fold['samples']:,}" for fold in run.audit["folds"].values()]
    text = (
        f"{counted(run.folds['group'].nunique(), 'group')} in folds of {listed(sizes)} samples. "
        + ("No group is in two folds, so no held-out sample has a sibling in training. " if leaked == 0 else "")
        + (
            f"{leaked:.1%} of the held-out samples have their group in training: their scores measure memory. "
            if leaked
            else ""
        )
        + "Blue cells hold more of a label than an even share, orange ones less. Of the "
        f"{counted(imbalance['labels'], 'label')} with a group for every fold, the worst is {imbalance['worst']:.0%} "
        f"off, the mean {imbalance['mean']:.0%}."
    )
    present = positives[positives.sum(axis=1) > 0]
    empty = present.index[(present == 0).any(axis=1)].tolist()
    if empty:
        text += f" Some fold has none of {listed(empty)}: there F1 is 0, whatever the model does."
    return text


def memory_caption(memory: dict[str, float]) -> str:
    """How much folds that split groups would flatter."""
    grouped, image_level = memory["grouped_folds"], memory["image_level_folds"]
    text = (
        f"To copy the labels of the sample most alike in brightness alone scores {figure(grouped)} across these folds "
        f"and {figure(image_level)} across folds that split groups: "
    )
    if image_level > grouped:
        return text + "the difference is memory of the antibody, by which such folds would flatter any model."
    return text + "brightness does not give the antibody away here."
