"""The sections on the data: labels, brightness of the channels, an example of each label, folds and duplicates."""

from collections.abc import Hashable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.core.labels import CHANNELS, LABELS, parse_target
from pipeline.reporting.blocks import (
    Card,
    Cards,
    PageSection,
    Pictures,
    ShownSample,
    count_noun,
    format_score,
    join_words,
)
from pipeline.reporting.charts import draw_counts, draw_heat_map, draw_spreads, panel, to_svg
from pipeline.reporting.figures import draw_fold_balance
from pipeline.reporting.finished_run import FinishedRun
from pipeline.reporting.pictures import examples

DUPLICATES_SHOWN = 12
"""Pairs of duplicates that the report shows."""


def data_section(run: FinishedRun) -> PageSection:
    """The frequencies of labels, the brightness of channels, and an example of each label."""
    counts = run.truth.sum(axis=0)
    order = np.argsort(-counts, kind="stable")
    order = order[counts[order] > 0]
    shown = [LABELS[label] for label in order]
    together = run.truth.astype(np.int64).T @ run.truth
    shares = (together / np.maximum(counts, 1)[:, None])[np.ix_(order, order)]
    np.fill_diagonal(shares, 0)
    height = 0.9 + 0.21 * len(order)
    drawings = [
        to_svg(panel(lambda axes: draw_counts(axes, shown, counts[order].tolist()), 3.6, height), "Samples by label"),
        to_svg(
            panel(lambda axes: draw_heat_map(axes, shares, None, shown, shown), 7.2, height + 1.2),
            "Share of the row's samples that also have the column's label",
        ),
    ]
    return PageSection(
        "data",
        "Data",
        [Pictures(drawings, labels_caption(run.truth)), channels(run), example_cards(run)],
    )


def labels_caption(truth: npt.NDArray[np.bool_]) -> str:
    """The range of label frequencies, and the labels that co-occur most often."""
    counts = truth.sum(axis=0)
    present = np.flatnonzero(counts)
    common, rare = present[counts[present].argmax()], present[counts[present].argmin()]
    text = (
        f"Bars: {count_noun(len(truth), 'training sample')} with {truth.sum(axis=1).mean():.2f} labels on average. "
        f"{LABELS[common]} ({counts[common]:,}) is {counts[common] / counts[rare]:,.0f} times as frequent as "
        f"{LABELS[rare]} ({counts[rare]:,}), and macro-F1 weights both equally. "
    )
    if absent := len(LABELS) - len(present):
        text += f"{absent} of the {len(LABELS)} labels have no sample. "
    together = truth.astype(np.int64).T @ truth
    np.fill_diagonal(together, 0)
    first, second = np.unravel_index(together.argmax(), together.shape)
    if together[first, second]:
        text += (
            f"Matrix: the share of a row's samples that also have the column's label. {LABELS[first]} and "
            f"{LABELS[second]} co-occur most often, in {count_noun(int(together[first, second]), 'sample')}."
        )
    return text


def channels(run: FinishedRun) -> Pictures:
    """The brightness of training and test images."""
    columns = [f"mean_{channel}" for channel in CHANNELS]
    everything = pd.concat(run.indexes.values())
    samples = {"training": everything.loc[everything["split"] == "train", columns].to_numpy()}
    test = run.indexes[run.params.data.sources[0]].query("split == 'test'")[columns].to_numpy()
    if len(test):
        samples["test"] = test
    picture = panel(lambda axes: draw_spreads(axes, CHANNELS, samples), 3.6, 2.6)
    drawing = to_svg(picture, "Mean brightness of each channel, training and test samples")
    return Pictures([drawing], channels_caption(samples))


def channels_caption(samples: dict[str, npt.NDArray[np.float64]]) -> str:
    """The channel in which training and test samples differ most."""
    text = (
        "Mean brightness of each channel, from 0 (black) to 1 (white): median (dot), middle 50% (thick bar) and middle "
        "90% (thin bar) of the samples. "
    )
    if "test" not in samples:
        return text + "There is no test set."
    train, test = (np.median(values, axis=0) for values in (samples["training"], samples["test"]))
    shift = test / np.maximum(train, 1e-9) - 1
    worst = int(np.abs(shift).argmax())
    text += (
        f"The test set differs most in {CHANNELS[worst]}: its median is {abs(shift[worst]):.0%} "
        f"{'higher' if shift[worst] > 0 else 'lower'} ({test[worst]:.3f} against {train[worst]:.3f})."
    )
    if abs(shift[worst]) > 0.1:
        return text + " A model that relies on brightness would not transfer to it."
    return text + " So both have about the same brightness."


def example_cards(run: FinishedRun) -> Cards:
    """An example of each label."""
    source = run.params.data.sources[0]
    index = run.indexes[source]
    cards = [
        Card(ShownSample(source, row, index["id"].iloc[row]), caption)
        for row, caption in examples(index)
        if index["split"].iloc[row] == "train"
    ]
    size = run.images[source].shape[1]
    missing = len(LABELS) - len(cards)
    lacking = f" {missing} of the {len(LABELS)} labels have no sample in it." if missing else ""
    return Cards(
        cards,
        f"One training sample per label from the source “{source}”, with few other labels where possible (in brackets: "
        "number of samples with the label). The protein is green, the nucleus blue, the microtubules red, each "
        f"stretched to full contrast.{lacking} Click a sample to see its four channels at {size} pixels.",
    )


def folds_section(run: FinishedRun) -> PageSection:
    """The balance of the folds, the leakage check, and pairs of duplicates."""
    positives = pd.DataFrame(run.truth, columns=list(LABELS)).groupby(run.folds["fold"].to_numpy()).sum().T
    drawing = to_svg(draw_fold_balance(positives), "Positive samples by label and fold")
    cards = [
        card for pair in run.duplicates.head(DUPLICATES_SHOWN).to_dict("records") for card in pair_cards(run, pair)
    ]
    return PageSection(
        "folds",
        "Folds",
        [
            Pictures([drawing], f"{folds_caption(run, positives)} {leakage_caption(run.metrics['memory'])}"),
            Cards(cards, duplicates_caption(run.duplicates) + leak_caption(run.metrics.get("test_leak")), paired=True),
        ],
    )


def pair_cards(run: FinishedRun, pair: dict[Hashable, Any]) -> list[Card]:
    """The two samples of a pair of duplicates."""
    how = "exact" if pair["kind"] == "exact" else f"{pair['distance']} bits apart"
    cards = []
    for side in ("a", "b"):
        source, sample, target = pair[f"source_{side}"], pair[f"id_{side}"], pair[f"target_{side}"]
        row = run.indexes[source].index[run.indexes[source]["id"] == sample][0]
        labels = (
            ", ".join(LABELS[label] for label in parse_target(target)) if isinstance(target, str) else "test sample"
        )
        cards.append(Card(ShownSample(source, int(row), sample), how, [labels]))
    return cards


def duplicates_caption(duplicates: pd.DataFrame) -> str:
    """How many pairs of samples show the same field of view, and whether their labels agree."""
    if duplicates.empty:
        return "No two samples show the same field of view, judging by their files and perceptual hashes."
    crossing = int((duplicates["split_a"] != duplicates["split_b"]).sum())
    different = int((duplicates["labels"] == "different").sum())
    return (
        f"{count_noun(len(duplicates), 'pair')} of samples of the same field of view, with identical files or similar "
        f"perceptual hashes of 256 bits. Each pair is kept in one fold; in {crossing:,} of them one is a test sample. "
        + (
            f"In {different:,} the labels contradict each other, so at least one of the two is wrong; these come first."
            if different
            else "The labels of no pair contradict each other."
        )
        + (f" The first {DUPLICATES_SHOWN} are shown." if len(duplicates) > DUPLICATES_SHOWN else "")
    )


def leak_caption(leak: dict[str, int] | None) -> str:
    """How many test samples a further source shows too; empty if there are none."""
    if leak is None:
        return ""
    return (
        f" {leak['samples']:,} of the {leak['of']:,} test samples also stand in a further source, with labels "
        "(tables/test-leak.csv). The models have been trained on them, so scores of the test set are optimistic; "
        "out-of-fold scores are not affected."
    )


def folds_caption(run: FinishedRun, positives: pd.DataFrame) -> str:
    """Whether groups are split between folds, and how evenly labels are distributed."""
    leaked = run.audit["held_out_share_with_group_in_training"]
    imbalance = run.audit["imbalance"]
    sizes = [f"{fold['samples']:,}" for fold in run.audit["folds"].values()]
    text = (
        f"{count_noun(run.folds['group'].nunique(), 'group')} in folds of {join_words(sizes)} samples. "
        + ("No group is in two folds, so no antibody is both in training and held out. " if leaked == 0 else "")
        + (
            f"{leaked:.1%} of the held-out samples have their group in training, which inflates the scores. "
            if leaked
            else ""
        )
        + "Blue: more samples of a label than with an even split; orange: fewer. The deviation from an even split is "
        f"at most {imbalance['worst']:.0%}, and {imbalance['mean']:.0%} on average, over the "
        f"{count_noun(imbalance['labels'], 'label')} with enough groups for all folds."
    )
    present = positives[positives.sum(axis=1) > 0]
    empty = present.index[(present == 0).any(axis=1)].tolist()
    if empty:
        text += f" Some fold has no sample of {join_words(empty)}, so F1 is 0 there for every model."
    return text


def leakage_caption(memory: dict[str, float]) -> str:
    """The leakage check: how much folds that split groups would inflate the scores."""
    grouped, image_level = memory["grouped_folds"], memory["image_level_folds"]
    text = (
        "Leakage check: copying the labels of the sample with the most similar brightness scores "
        f"{format_score(grouped)} with these folds and {format_score(image_level)} with folds that split groups. "
    )
    if image_level > grouped:
        return text + "With such a split, any model that recognises the antibody would score too high."
    return text + "Here, brightness does not identify the antibody."
