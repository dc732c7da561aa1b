"""A row for each thing compared: estimates with their intervals, counts, and spreads."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes

from pipeline.report.charts.theme import BLUE, INK, MUTED, ORANGE, SKY

Floats = npt.NDArray[np.float64]


def draw_intervals(axes: Axes, table: pd.DataFrame, reference: tuple[str, float] | None = None) -> None:
    """Estimates as dots on their intervals, the first row on top.

    Args:
        axes: to draw on.
        table: ``name``, ``estimate``, ``low`` and ``high``, a row each; without an interval the ends are missing.
        reference: the name and the place of a vertical line.
    """
    rows = np.arange(len(table))
    axes.hlines(rows, table["low"], table["high"], color=SKY, linewidth=4)
    axes.plot(table["estimate"], rows, "o", color=BLUE, markersize=6)
    if reference:
        name, place = reference
        axes.axvline(place, color=ORANGE, linewidth=1.2, linestyle="--", zorder=0)
        axes.annotate(name, (place, 1), xycoords=("data", "axes fraction"), color=ORANGE, ha="center", va="bottom")
    farthest = table[["estimate", "high"]].max().max()
    axes.set_xlim(-0.02, min(1.02, 1.1 * farthest + 0.02))
    axes.grid(axis="x")
    name_rows(axes, table["name"].tolist())


def draw_counts(axes: Axes, names: Sequence[str], counts: Sequence[int]) -> None:
    """Counts as bars with their figures, the first row on top; on a logarithmic scale where they span more than 30."""
    shown = np.asarray(counts)
    axes.barh(np.arange(len(shown)), shown, color=SKY, height=0.7)
    if shown.max() > 30 * max(shown.min(), 1):
        axes.set_xscale("log")
        axes.set_xlim(left=0.8, right=shown.max() * 4)
    else:
        axes.set_xlim(right=shown.max() * 1.25)
    for row, count in enumerate(shown):
        axes.text(max(count, 0.8), row, f" {count:,}", va="center", color=MUTED, fontsize=8)
    axes.set_xticks([], minor=True)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    name_rows(axes, names)


def draw_spreads(axes: Axes, names: Sequence[str], samples: dict[str, Floats]) -> None:
    """For each name and each set of samples: the median as a dot, the middle half and the middle 90 % as bars.

    Args:
        axes: to draw on.
        names: of the columns.
        samples: (n, columns), by the name of the set; at most two.
    """
    for offset, (name, values), colour in zip((-0.17, 0.17), samples.items(), (BLUE, ORANGE), strict=False):
        p5, p25, p50, p75, p95 = np.percentile(values, (5, 25, 50, 75, 95), axis=0)
        rows = np.arange(len(names)) + offset
        axes.hlines(rows, p5, p95, color=colour, linewidth=1)
        axes.hlines(rows, p25, p75, color=colour, linewidth=5, alpha=0.5)
        axes.plot(p50, rows, "o", color=colour, markersize=5, label=name)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    axes.set_xlim(left=0)
    axes.grid(axis="x")
    name_rows(axes, names)


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Write the names of rows 0, 1, 2, ..., the first on top."""
    axes.set_yticks(range(len(names)), list(names), color=INK)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_ylim(len(names) - 0.4, -0.6)
