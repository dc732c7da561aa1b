"""Plain warnings where an image is unlike the training images: exposure, scale, empty channels, missing stains.

Limits are quantiles of the training samples, so a known share of samples like them is warned of as well.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.app.uploads import Sample, missing_stains
from pipeline.core.labels import CHANNELS
from pipeline.evaluation.reference_file import Reference
from pipeline.inference.channel_statistics import STATISTICS, Doubles, channel_statistics
from pipeline.inference.novelty import FALSE_ALARMS
from pipeline.reporting.page import STAINS

TAIL = 0.005
"""Share of training samples beyond each limit of brightness, saturation and scale."""

EMPTY = 3
"""Grey levels: a channel whose 0.5 and 99.8 percentiles differ by less shows nothing."""

RESIZED = 2.0
"""Images larger or smaller than those of the training samples by more than this factor are named."""


class Caution(NamedTuple):
    """What is unlike the training images; ``kind`` is a word or two, ``text`` whole sentences."""

    kind: str
    text: str


class ScaleDetector:
    """Tells whether structures are larger or smaller than in the training samples, by the variograms of the stains.

    A low roughness over all distances means larger structures, or blur. A high roughness of the nuclei at the larger
    distances means smaller cells. Both are compared with quantiles of the training samples.
    """

    def __init__(self, statistics: Doubles) -> None:
        """Measure the training samples: (N, F), of ``channel_statistics``."""
        self._mean, self._deviation = statistics.mean(axis=0), np.maximum(statistics.std(axis=0), 1e-6)
        rough = [name.startswith("roughness") and "green" not in name for name in STATISTICS]
        nuclei = [name in ("roughness of blue at 8 px", "roughness of blue at 16 px") for name in STATISTICS]
        self._all, self._nuclei = np.array(rough), np.array(nuclei)
        coarse, fine = self._scores(statistics)
        self._low, self._high = float(np.quantile(coarse, TAIL)), float(np.quantile(fine, 1 - TAIL))

    def compare(self, statistics: Doubles) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Which samples, of statistics (n, F), have larger or blurred structures, and which have smaller ones."""
        coarse, fine = self._scores(statistics)
        return coarse < self._low, fine > self._high

    def _scores(self, statistics: Doubles) -> tuple[Doubles, Doubles]:
        standard = (statistics - self._mean) / self._deviation
        return standard[:, self._all].mean(axis=1), standard[:, self._nuclei].mean(axis=1)


class TrainingLikeness:
    """Compares samples with the training samples of a run."""

    def __init__(self, reference: Reference | None, training: pd.DataFrame | None, unprepared: Sequence[str]) -> None:
        """Take what is known of the run.

        Args:
            reference: its training samples as a model sees them.
            training: their rows of the index, for the brightness and the size of their files.
            unprepared: models that were trained on complete samples only.
        """
        self._scale = None if reference is None else ScaleDetector(reference.statistics)
        self._training, self._unprepared = training, tuple(unprepared)

    @property
    def knows_exposure(self) -> bool:
        """Whether the brightness of the training samples is known."""
        return self._training is not None

    def cautions(self, sample: Sample, novelty: float | None) -> list[Caution]:
        """All that is unlike; ``novelty`` is None if it is unknown."""
        found = [*self._missing(sample), *self._empty(sample), *self._exposure(sample), *self._size(sample)]
        if self._scale is not None and not missing_stains(sample):
            found += self._structures(self._scale, sample)
        if novelty is not None and novelty >= 1 - FALSE_ALARMS:
            found.append(
                Caution(
                    "unlike the training images",
                    f"{novelty:.0%} of the held-out training images are less unusual than this one. Look at it before "
                    f"you rely on the labels. {FALSE_ALARMS:.0%} of images like the training images are warned of too.",
                )
            )
        return found

    def _missing(self, sample: Sample) -> Iterator[Caution]:
        missing = missing_stains(sample)
        if missing:
            names = _listed([stain_name(channel) for channel in missing])
            trained = (
                f"{_listed(self._unprepared)} never saw such images in training and may predict them badly."
                if self._unprepared
                else "The models have been trained on some images without them too."
            )
            yield Caution(
                "missing stain",
                f"There is no image of {names}. {trained} How unusual the image is otherwise is not known: the "
                "comparison needs all four stains.",
            )

    def _empty(self, sample: Sample) -> Iterator[Caution]:
        for channel in sample.stains:
            low, high = np.percentile(sample.pixels[..., CHANNELS.index(channel)], (0.5, 99.8))
            if high - low < EMPTY:
                yield Caution(
                    "empty channel",
                    f"The image of {stain_name(channel)} shows nothing: nearly all of its pixels have the same value. "
                    "Check the file.",
                )

    def _exposure(self, sample: Sample) -> Iterator[Caution]:
        if self._training is None:
            return
        for channel in sample.stains:
            mean, _, saturated = sample.brightness[channel]
            low, high = np.quantile(self._training[f"mean_{channel}"], (TAIL, 1 - TAIL))
            most = float(np.quantile(self._training[f"saturated_{channel}"], 1 - TAIL))
            if not low <= mean <= high:
                yield Caution(
                    "exposure",
                    f"The image of {stain_name(channel)} is {'darker' if mean < low else 'brighter'} than the training "
                    f"images: its mean is {255 * mean:.1f} of 255, theirs are {255 * low:.1f} to {255 * high:.1f}.",
                )
            if saturated > most and saturated > 1e-4:
                yield Caution(
                    "exposure",
                    f"The image of {stain_name(channel)} is overexposed: {saturated:.1%} of its pixels are white, "
                    f"hardly ever more than {most:.1%} in the training images.",
                )

    def _size(self, sample: Sample) -> Iterator[Caution]:
        if self._training is None:
            return
        sides = self._training["height"]
        least, most = int(sides.min()), int(sides.max())
        if not least / RESIZED <= sample.side <= most * RESIZED:
            theirs = f"{least}" if least == most else f"{least} to {most}"
            yield Caution(
                "scale",
                f"The images are {sample.side} pixels wide, the training images {theirs}. All are resized to one size: "
                "if the field is not as wide in micrometres as theirs, cells have another size than in training.",
            )

    def _structures(self, scale: ScaleDetector, sample: Sample) -> Iterator[Caution]:
        larger, smaller = scale.compare(channel_statistics(sample.pixels[None]))
        if larger[0]:
            yield Caution(
                "scale",
                "Structures are larger or more blurred than in the training images. Check the focus and the "
                "magnification, and whether the image is a crop.",
            )
        if smaller[0]:
            yield Caution(
                "scale",
                "Nuclei are smaller or noisier than in the training images. Check the magnification, and whether the "
                "image is a mosaic of several fields.",
            )


def stain_name(channel: str) -> str:
    """A channel in words: what it shows, and its colour."""
    return f"the {STAINS[channel]} ({channel})"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
