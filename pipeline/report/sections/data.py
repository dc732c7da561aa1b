"""What the run was given: labels, exposure of the channels, and what each location looks like."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.labels import CHANNELS, LABELS
from pipeline.report.blocks import Card, Cards, Pictures, Sample, Section
from pipeline.report.charts.heat import draw_heat_map
from pipeline.report.charts.rows import draw_counts, draw_spreads
from pipeline.report.charts.theme import panel, to_svg
from pipeline.report.contact_sheet import examples
from pipeline.report.run import Run
from pipeline.report.words import counted

Counts = npt.NDArray[np.int64]


def data_section(run: Run) -> Section:
    """The labels, the channels, an example of each label."""
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
    return Section(
        "data",
        "Data at a glance",
        [Pictures(drawings, labels_caption(run.truth)), channels(run), example_cards(run)],
    )


def labels_caption(truth: npt.NDArray[np.bool_]) -> str:
    """How uneven the labels are, and which go together."""
    counts = truth.sum(axis=0)
    present = np.flatnonzero(counts)
    common, rare = present[counts[present].argmax()], present[counts[present].argmin()]
    text = (
        f"Left: {counted(len(truth), 'training sample')} with {truth.sum(axis=1).mean():.2f} labels on average. "
        f"{LABELS[common]} ({counts[common]:,}) is {counts[common] / counts[rare]:,.0f} times as frequent as "
        f"{LABELS[rare]} ({counts[rare]:,}), and macro-F1 weighs both the same. "
    )
    if absent := len(LABELS) - len(present):
        text += f"No sample has the other {counted(absent, 'label')}. "
    together = truth.astype(np.int64).T @ truth
    np.fill_diagonal(together, 0)
    first, second = np.unravel_index(together.argmax(), together.shape)
    if together[first, second]:
        text += (
            f"Right: the share of a row's samples that also have the column's label. {LABELS[first]} and "
            f"{LABELS[second]} meet most often, in {counted(int(together[first, second]), 'sample')}."
        )
    return text


def channels(run: Run) -> Pictures:
    """Exposure of training against test images."""
    columns = [f"mean_{channel}" for channel in CHANNELS]
    everything = pd.concat(run.indexes.values())
    samples = {"training": everything.loc[everything["split"] == "train", columns].to_numpy()}
    test = run.indexes[run.params.data.sources[0]].query("split == 'test'")[columns].to_numpy()
    if len(test):
        samples["test"] = test
    picture = panel(lambda axes: draw_spreads(axes, CHANNELS, samples), 3.6, 2.6)
    drawing = to_svg(picture, "Mean of each channel as a share of white, training and test samples")
    return Pictures([drawing], channels_caption(samples))


def channels_caption(samples: dict[str, npt.NDArray[np.float64]]) -> str:
    """Where training and test differ most."""
    text = "A sample's mean in each channel, as a share of white: median, middle half and middle 90% of the samples. "
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
        return text + " A model that goes by brightness would be misled."
    return text + " So the two are exposed alike."


def example_cards(run: Run) -> Cards:
    """A training sample for each label that has one."""
    source = run.params.data.sources[0]
    index = run.indexes[source]
    cards = [
        Card(Sample(source, row, index["id"].iloc[row]), caption)
        for row, caption in examples(index)
        if index["split"].iloc[row] == "train"
    ]
    size = run.images[source].shape[1]
    missing = len(LABELS) - len(cards)
    lacking = f" {counted(missing, 'label')} of the 28 have none." if missing else ""
    return Cards(
        cards,
        f"A sample for each label of the source “{source}”, with few others where there is one: protein green, "
        f"nucleus blue, microtubules red, each stretched to full contrast.{lacking} Click a sample for its four "
        f"channels at {size} pixels.",
    )
