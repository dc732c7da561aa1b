"""Samples as images inside the page: small composites, their maps, and the four channels at packed size."""

import base64
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import numpy.typing as npt

from pipeline.atlas.images import Image, encode_webp, fit, shrink
from pipeline.progress import track
from pipeline.report.contact_sheet import composite

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
