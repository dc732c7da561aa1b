"""Pictures of samples: colour composites, attention maps, the images inside the report, and contact sheets."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from pipeline.core.labels import CHANNELS, LABELS, target_matrix
from pipeline.core.progress import track
from pipeline.sources.images import Image, encode_webp, fit, shrink

THUMB = 224
"""Side of a thumbnail in the report, in pixels."""

MINI = 80
"""Side of the pictures that the map of samples shows, in pixels."""

THUMB_QUALITY = 75
MINI_QUALITY = 50
QUALITIES = (80, 65, 50, 35, 20, 10)
"""WebP qualities; the first at which the channels fit into `BUDGET` is used."""

BUDGET = 7_500_000
"""Bytes for the four channels of all samples, before base64 encoding, which adds a third."""

PROBE = 12
"""Samples that are encoded to estimate the size at a quality."""

SHEET_THUMB = 256
"""Side of an image on a contact sheet, in pixels."""

RGB = [CHANNELS.index(colour) for colour in ("red", "green", "blue")]
"""The channels of a colour composite."""

SHEET_COLUMNS = 8
SHEET_TESTS = 4
"""Test samples on a contact sheet."""


def composite(image: Image) -> Image:
    """Colour composite: protein green, nucleus blue, microtubules red, each stretched to full contrast.

    Args:
        image: (S, S, 4) uint8, channels in the order of ``labels.CHANNELS``.

    Returns:
        (S, S, 3) uint8 RGB. The 0.5 and 99.8 percentiles of a channel become 0 and 255; an empty channel stays black.
    """
    chosen = image[..., RGB].astype(np.float32)
    low, high = np.percentile(chosen, (0.5, 99.8), axis=(0, 1))
    stretched = (chosen - low) / np.maximum(high - low, 1)
    shown: Image = (stretched.clip(0, 1) * 255).astype(np.uint8)
    return shown


def thumbnail(image: Image) -> str:
    """A small composite of (S, S, 4) uint8, as a data URI."""
    return data_uri(encode_webp(composite(_small(image)), THUMB_QUALITY))


def miniature(image: Image) -> str:
    """A very small composite of (S, S, 4) uint8, as WebP in base64."""
    small = composite(shrink(image, min(MINI, image.shape[0])))
    return base64.b64encode(encode_webp(small, MINI_QUALITY)).decode()


def overlaid(image: Image, attention: npt.NDArray[np.uint8]) -> str:
    """A small `overlay` of a map on (S, S, 4) uint8, as a data URI."""
    return data_uri(encode_webp(overlay(_small(image), attention), THUMB_QUALITY))


def overlay(image: Image, attention: npt.NDArray[np.uint8]) -> Image:
    """Draw a map (h, w) uint8 in orange over the protein channel of (S, S, 4) uint8 in gray: (S, S, 3) uint8."""
    protein = composite(image)[..., [1]].astype(np.float64)
    # The colour map is cut off at orange: its paler colours look like bright protein.
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
    """The best quality at which all images are expected to fit into `BUDGET`, estimated from a few of them."""
    probe = images[:: max(1, len(images) // PROBE)]
    for quality in QUALITIES:
        size = sum(len(data) for image in probe for data in encode_channels(image, quality)) / max(len(probe), 1)
        if size * len(images) <= BUDGET:
            return quality
    return QUALITIES[-1]


def encode_channels(image: Image, quality: int) -> list[bytes]:
    """Encode each channel of (S, S, 4) as WebP, stretched from its 0.5 to its 99.8 percentile."""
    low, high = np.percentile(image[::2, ::2], (0.5, 99.8), axis=(0, 1))
    stretched = ((image - low) / np.maximum(high - low, 1)).clip(0, 1) * 255
    return [encode_webp(channel, quality) for channel in stretched.astype(np.uint8).transpose(2, 0, 1)]


def data_uri(webp: bytes) -> str:
    """Encode a WebP file as a data URI."""
    return f"data:image/webp;base64,{base64.b64encode(webp).decode()}"


def examples(index: pd.DataFrame) -> list[tuple[int, str]]:
    """Choose a training sample for each label that occurs, and a few test samples.

    Prefers samples that were not chosen for another label, then samples with few other labels.

    Returns:
        Rows of the index and their captions.
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
    """Write a PNG of example images, each under the name of its label and the number of training samples with it.

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


def draw_reconstructions(found: Mapping[str, npt.NDArray[Any]], path: Path) -> None:
    """Write a PNG of images as an autoencoder has seen and reconstructed them, one column each, and the truth.

    What the loss does not compare, such as visible patches, is shown as it was seen, since the output is arbitrary
    there. All three images of a column have one brightness.

    Args:
        found: ``shown``, ``target``, ``output`` and ``scored`` of a ``Reconstruction``, (N, 4, h, w) each.
        path: the PNG to write.
    """
    shown, target, output, scored = (found[name].astype(np.float32) for name in ("shown", "target", "output", "scored"))
    filled = np.where(scored > 0, output, shown)
    low, high = np.percentile(target, (0.5, 99.8), axis=(2, 3), keepdims=True)  # N, 4, 1, 1
    rows = {"seen": shown, "reconstructed": filled, "truth": target}
    count = len(target)
    figure = Figure(figsize=(count * 2, len(rows) * 2.1), dpi=100, layout="constrained", facecolor="white")
    axes = figure.subplots(len(rows), count, squeeze=False)
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        scaled = ((images - low) / np.maximum(high - low, 1e-6)).clip(0, 1).transpose(0, 2, 3, 1)
        for axis, image in zip(line, scaled[..., RGB], strict=True):
            axis.imshow(image)
            axis.set_xticks([], [])
            axis.set_yticks([], [])
        line[0].set_ylabel(name, fontsize=9)
    figure.savefig(path, format="png", metadata={"Software": None})


def _small(image: Image) -> Image:
    return shrink(image, min(THUMB, image.shape[0]))
