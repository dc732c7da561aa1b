"""The building blocks of the report (plots, tables, samples and their captions), and the formatting of text."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from pipeline.core.labels import LABELS


@dataclass(frozen=True)
class ShownSample:
    """A sample in the report; a click on it opens its four channels."""

    source: str
    row: int
    id: str

    @property
    def key(self) -> str:
        """A name that is unique within the run."""
        return f"{self.source}/{self.row}"


@dataclass(frozen=True)
class Overlay:
    """A map to draw over a sample: (h, w) uint8, and its name."""

    name: str
    map: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Card:
    """A sample with a title and lines of text."""

    sample: ShownSample
    title: str
    lines: Sequence[str] = ()
    overlays: Sequence[Overlay] = ()


@dataclass(frozen=True)
class TableCell:
    """A cell of a table.

    Attributes:
        text: its content.
        value: the number to sort by, if any; otherwise cells are sorted by text.
        bar: low end, estimate and high end of an interval to draw, in 0..1.
    """

    text: str
    value: float | None = None
    bar: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Tiles:
    """The most important numbers, each with a name and a remark."""

    kind: ClassVar[str] = "tiles"
    tiles: Sequence[tuple[str, str, str]]
    caption: str


@dataclass(frozen=True)
class Pictures:
    """SVG plots side by side."""

    kind: ClassVar[str] = "pictures"
    drawings: Sequence[str]
    caption: str


@dataclass(frozen=True)
class Table:
    """A table; a click on a column header sorts it."""

    kind: ClassVar[str] = "table"
    columns: Sequence[str]
    rows: Sequence[Sequence[TableCell]]
    caption: str


@dataclass(frozen=True)
class Cards:
    """Samples side by side."""

    kind: ClassVar[str] = "cards"
    cards: Sequence[Card]
    caption: str
    paired: bool = False  # cards 1 and 2, 3 and 4, ... belong together


@dataclass(frozen=True)
class MapPoint:
    """A sample on a map.

    Attributes:
        sample: the sample.
        x: from 0 on the left to 1 on the right.
        y: from 0 at the top to 1 at the bottom.
        labels: ids of its labels.
        solid: drawn as a filled dot, not a ring.
    """

    sample: ShownSample
    x: float
    y: float
    labels: Sequence[int]
    solid: bool


@dataclass(frozen=True)
class SampleMap:
    """Samples on a plane; those with the chosen label are coloured, and pointing at one shows it.

    Attributes:
        points: the samples.
        labels: id, name and number of samples of each label to choose, the first one chosen at the start.
        caption: of the map.
    """

    kind: ClassVar[str] = "map"
    points: Sequence[MapPoint]
    labels: Sequence[tuple[int, str, int]]
    caption: str


@dataclass(frozen=True)
class Listing:
    """A long text, collapsed under its title."""

    kind: ClassVar[str] = "listing"
    title: str
    text: str
    caption: str


Block = Tiles | Pictures | Table | Cards | SampleMap | Listing


@dataclass(frozen=True)
class PageSection:
    """A section of the report; ``id`` is its anchor."""

    id: str
    title: str
    blocks: Sequence[Block]


SIMULATED = "sample"
"""The source that the simulate stage draws."""

BIAS_NOTE = (
    "F1 of few positives is biased downwards, so the intervals are shifted upwards and a score can lie near the lower "
    "end of its interval."
)
"""Belongs beside every F1 that is shown with its interval."""


def simulated(sources: Sequence[str]) -> str:
    """An adjective for samples of some sources, with a space after it: "simulated ", "partly simulated " or ""."""
    if SIMULATED not in sources:
        return ""
    return "simulated " if len(sources) == 1 else "partly simulated "


def format_score(value: float) -> str:
    """A score with three decimals; "n/a" for NaN."""
    return "n/a" if np.isnan(value) else f"{value:.3f}"


def format_interval(low: float, high: float) -> str:
    """The ends of an interval, with three decimals."""
    return f"{low:.3f} to {high:.3f}"


def join_words(items: Iterable[str]) -> str:
    """Join items for a sentence: "a", "a and b", "a, b and c"."""
    words = list(items)
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def count_noun(number: int, noun: str) -> str:
    """A number with its noun: "1 sample", "1,200 samples"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def label_names(present: npt.NDArray[np.bool_]) -> str:
    """The names of the labels of one sample, (28,); "none" if there are none."""
    return ", ".join(LABELS[label] for label in np.flatnonzero(present)) or "none"


def number_cells(values: Sequence[float], decimals: int = 3) -> list[TableCell]:
    """Table cells with numbers; "n/a" for NaN."""
    return [TableCell("n/a" if np.isnan(value) else f"{value:,.{decimals}f}", float(value)) for value in values]
