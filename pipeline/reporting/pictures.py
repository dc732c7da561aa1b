"""Samples as images inside the page: small composites, their maps, and the four channels at packed size."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from pipeline.core.labels import CHANNELS, LABELS, target_matrix
from pipeline.core.progress import track
from pipeline.sources.images import Image, encode_webp, fit, shrink

THUMB = 224
"""Pixels."""

THUMB_QUALITY = 75
QUALITIES = (80, 65, 50, 35, 20, 10)
"""Of WebP; the first at which the channels stay within their budget is taken."""

BUDGET = 7_500_000
"""Bytes for the four channels of all samples, a third less than they take in the page as text."""

PROBE = 12
"""Samples that a quality is tried on."""


def thumbnail(image: Image) -> str:
    """The composite of (S, S, 4) uint8 as a data URI."""
    return data_uri(encode_webp(composite(_small(image)), THUMB_QUALITY))


def overlaid(image: Image, attention: npt.NDArray[np.uint8]) -> str:
    """The `overlay` of (S, S, 4) uint8 and a map, small and as a data URI."""
    return data_uri(encode_webp(overlay(_small(image), attention), THUMB_QUALITY))


def overlay(image: Image, attention: npt.NDArray[np.uint8]) -> Image:
    """The protein of (S, S, 4) uint8 in gray, orange where the map (h, w) says that it is looked at, (S, S, 3)."""
    protein = composite(image)[..., [1]].astype(np.float64)
    # The map's upper end is orange: the colours beyond are too pale to tell from the protein.
    heat = matplotlib.colormaps["inferno"](0.72 * fit(attention, image.shape[0]) / 255)[..., :3] * 255
    shown: Image = (0.7 * protein + 0.75 * heat).clip(0, 255).astype(np.uint8)
    return shown


def channel_files(images: Mapping[str, Image]) -> dict[str, list[str]]:
    """The four channels of each sample as base64 WebP, each stretched to full contrast, in the order of ``CHANNELS``.

    Args:
        images: (S, S, 4) uint8 by the sample's key.
    """
    quality = choose_quality(list(images.values()))
    return {
        key: [base64.b64encode(data).decode() for data in encode_channels(image, quality)]
        for key, image in track(images.items(), "channels", total=len(images))
    }


def choose_quality(images: Sequence[Image]) -> int:
    """The best quality at which all images are likely to stay within `BUDGET`, judged by a few of them."""
    probe = images[:: max(1, len(images) // PROBE)]
    for quality in QUALITIES:
        size = sum(len(data) for image in probe for data in encode_channels(image, quality)) / max(len(probe), 1)
        if size * len(images) <= BUDGET:
            return quality
    return QUALITIES[-1]


def encode_channels(image: Image, quality: int) -> list[bytes]:
    """Each channel of (S, S, 4) as WebP, its 0.5 and 99.8 percentiles black and white."""
    low, high = np.percentile(image[::2, ::2], (0.5, 99.8), axis=(0, 1))
    stretched = ((image - low) / np.maximum(high - low, 1)).clip(0, 1) * 255
    return [encode_webp(channel, quality) for channel in stretched.astype(np.uint8).transpose(2, 0, 1)]


def data_uri(webp: bytes) -> str:
    """Bytes of a WebP as an address that holds them."""
    return f"data:image/webp;base64,{base64.b64encode(webp).decode()}"


def _small(image: Image) -> Image:
    return shrink(image, min(THUMB, image.shape[0]))


SHEET_THUMB = 256
"""Pixels."""

SHEET_COLUMNS = 8
SHEET_TESTS = 4


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
    tests = index.loc[index["split"] == "test", "row"].iloc[:SHEET_TESTS]
    return chosen + [(int(row), "test sample") for row in tests]


def draw_contact_sheet(images: npt.NDArray[np.uint8], index: pd.DataFrame, path: Path) -> None:
    """Draw the examples of a source, each under its label's name and number of training samples, as PNG.

    Args:
        images: (N, S, S, 4) uint8.
        index: N rows with ``row``, ``split`` and ``target``.
        path: the PNG to write.
    """
    shown = examples(index)
    rows = -(-len(shown) // SHEET_COLUMNS)
    figure = Figure(figsize=(SHEET_COLUMNS * 2, rows * 2.25), dpi=100, layout="constrained", facecolor="white")
    axes = figure.subplots(rows, SHEET_COLUMNS, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, (row, caption) in zip(axes, shown, strict=False):
        axis.imshow(composite(shrink(images[row], min(SHEET_THUMB, images.shape[1]))))
        axis.set_title(caption, fontsize=8)
    figure.savefig(path, format="png", metadata={"Software": None})
