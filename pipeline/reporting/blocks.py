"""What a page is made of: sections of pictures, tables and samples, each with a caption that says what it shows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from pipeline.core.labels import LABELS


@dataclass(frozen=True)
class ShownSample:
    """A sample to show: a click opens its four channels."""

    source: str
    row: int
    id: str

    @property
    def key(self) -> str:
        """A name that no other sample of the run has."""
        return f"{self.source}/{self.row}"


@dataclass(frozen=True)
class Overlay:
    """A map to lay over a sample: (h, w) uint8, and what it is called."""

    name: str
    map: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Card:
    """A sample with what is to be said of it."""

    sample: ShownSample
    title: str
    lines: Sequence[str] = ()
    overlays: Sequence[Overlay] = ()


@dataclass(frozen=True)
class TableCell:
    """A table's cell.

    Attributes:
        text: what it says.
        value: what it is sorted by where that is a number.
        bar: an interval's low end, estimate and high end, in 0..1, to be drawn.
    """

    text: str
    value: float | None = None
    bar: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Tiles:
    """The few figures to read first: each a name, a figure and a remark."""

    kind: ClassVar[str] = "tiles"
    tiles: Sequence[tuple[str, str, str]]
    caption: str


@dataclass(frozen=True)
class Pictures:
    """SVG drawings side by side."""

    kind: ClassVar[str] = "pictures"
    drawings: Sequence[str]
    caption: str


@dataclass(frozen=True)
class Table:
    """A table that is sorted by a click on a column's head."""

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
    paired: bool = False  # two cards belong together


@dataclass(frozen=True)
class Listing:
    """A long text, folded away under its title."""

    kind: ClassVar[str] = "listing"
    title: str
    text: str
    caption: str


Block = Tiles | Pictures | Table | Cards | Listing


@dataclass(frozen=True)
class PageSection:
    """A part of the page: ``id`` is its anchor."""

    id: str
    title: str
    blocks: Sequence[Block]


def format_score(value: float) -> str:
    """A score: three decimals, "n/a" where there is none."""
    return "n/a" if np.isnan(value) else f"{value:.3f}"


def format_interval(low: float, high: float) -> str:
    """An interval's ends."""
    return f"{low:.3f} to {high:.3f}"


def join_words(items: Iterable[str]) -> str:
    """Items in a sentence: "a", "a and b", "a, b and c"."""
    words = list(items)
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def count_noun(number: int, noun: str) -> str:
    """How many: "1 sample", "1,200 samples"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def label_names(present: npt.NDArray[np.bool_]) -> str:
    """The labels of one sample, (28,), by name."""
    return ", ".join(LABELS[label] for label in np.flatnonzero(present)) or "none"


def number_cells(values: Sequence[float], decimals: int = 3) -> list[TableCell]:
    """Cells of numbers."""
    return [TableCell("n/a" if np.isnan(value) else f"{value:,.{decimals}f}", float(value)) for value in values]
