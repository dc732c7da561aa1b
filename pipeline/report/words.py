"""Figures and lists as they are written in a sentence."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from pipeline.labels import LABELS
from pipeline.report.blocks import Cell


def figure(value: float) -> str:
    """A score: three decimals, "n/a" where there is none."""
    return "n/a" if np.isnan(value) else f"{value:.3f}"


def within(low: float, high: float) -> str:
    """An interval's ends."""
    return f"{low:.3f} to {high:.3f}"


def listed(items: Iterable[str]) -> str:
    """Items in a sentence: "a", "a and b", "a, b and c"."""
    words = list(items)
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def counted(number: int, noun: str) -> str:
    """How many: "1 sample", "1,200 samples"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def names(present: npt.NDArray[np.bool_]) -> str:
    """The labels of one sample, (28,), by name."""
    return ", ".join(LABELS[label] for label in np.flatnonzero(present)) or "none"


def numbers(values: Sequence[float], decimals: int = 3) -> list[Cell]:
    """Cells of numbers."""
    return [Cell("n/a" if np.isnan(value) else f"{value:,.{decimals}f}", float(value)) for value in values]
