"""A sheet of example images: the first thing to look at in a source."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from pipeline.atlas.images import Image, shrink
from pipeline.labels import CHANNELS, LABELS, target_matrix

THUMB = 256
"""Pixels."""

COLUMNS = 8
TESTS = 4


def composite(image: Image) -> Image:
    """Show the protein in green, the nucleus in blue and the microtubules in red, each stretched to full contrast.

    Args:
        image: (S, S, 4) uint8, channels in the order of ``labels.CHANNELS``.

    Returns:
        (S, S, 3) uint8 RGB. A channel's 0.5 and 99.8 percentiles become black and white; an empty one stays black.
    """
    chosen = image[..., [CHANNELS.index(colour) for colour in ("red", "green", "blue")]].astype(np.float32)
    low, high = np.percentile(chosen, (0.5, 99.8), axis=(0, 1))
    stretched = (chosen - low) / np.maximum(high - low, 1)
    shown: Image = (stretched.clip(0, 1) * 255).astype(np.uint8)
    return shown


def examples(index: pd.DataFrame) -> list[tuple[int, str]]:
    """Choose a training sample for each label that has one, and a few test samples.

    A sample not chosen before goes first, then one with few other labels.

    Returns:
        Rows of the index, each with its caption.
    """
    train = index[index["split"] == "train"]
    present = target_matrix(train["target"])
    cost = present.sum(axis=1)
    chosen = []
    for label, name in enumerate(LABELS):
        rows = np.flatnonzero(present[:, label])
        if rows.size:
            best = rows[np.argmin(cost[rows])]
            cost[best] += len(LABELS)
            chosen.append((int(train["row"].iloc[best]), f"{name} ({rows.size:,})"))
    tests = index.loc[index["split"] == "test", "row"].iloc[:TESTS]
    return chosen + [(int(row), "test sample") for row in tests]


def contact_sheet(images: npt.NDArray[np.uint8], index: pd.DataFrame, path: Path) -> None:
    """Draw the examples of a source, each under its label's name and number of training samples, as PNG.

    Args:
        images: (N, S, S, 4) uint8.
        index: N rows with ``row``, ``split`` and ``target``.
        path: the PNG to write.
    """
    shown = examples(index)
    rows = -(-len(shown) // COLUMNS)
    figure = Figure(figsize=(COLUMNS * 2, rows * 2.25), dpi=100, layout="constrained", facecolor="white")
    axes = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, (row, caption) in zip(axes, shown, strict=False):
        axis.imshow(composite(shrink(images[row], min(THUMB, images.shape[1]))))
        axis.set_title(caption, fontsize=8)
    figure.savefig(path)
