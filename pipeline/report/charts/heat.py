"""Heat maps whose cells are tints over the page, so that they read on light and on dark."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from pipeline.report.charts.rows import name_rows
from pipeline.report.charts.theme import BLUE, ORANGE

DEEPEST = 0.65
"""Opacity of the strongest tint: text stays legible on it."""


def draw_heat_map(
    axes: Axes,
    values: npt.NDArray[np.float64],
    texts: Sequence[Sequence[str]] | None,
    row_names: Sequence[str],
    column_names: Sequence[str],
) -> None:
    """Tint each cell, blue for positive and orange for negative values, the deeper the farther from 0.

    Args:
        axes: to draw on.
        values: (R, C), in -1..1; what is farther out is shown as the end of the scale.
        texts: what each cell says, or nothing.
        row_names: R, the first on top.
        column_names: C, written upright where they are longer than a word.
    """
    rows, columns = values.shape
    tints = np.empty((rows * columns, 4))
    flat = values.ravel().clip(-1, 1)
    tints[:, :3] = np.where(flat[:, None] >= 0, to_rgb(BLUE), to_rgb(ORANGE))
    tints[:, 3] = np.abs(flat) * DEEPEST
    cells = [Rectangle((column - 0.5, row - 0.5), 1, 1) for row in range(rows) for column in range(columns)]
    axes.add_collection(PatchCollection(cells, facecolors=tints, linewidths=0))
    for row, line in enumerate(texts or []):
        for column, text in enumerate(line):
            axes.text(column, row, text, ha="center", va="center", fontsize=8)
    axes.set_xlim(-0.5, columns - 0.5)
    name_rows(axes, row_names)
    axes.set_ylim(rows - 0.5, -0.5)
    upright = max(map(len, column_names)) > 8
    axes.set_xticks(range(columns), list(column_names), rotation=90 if upright else 0)
    axes.xaxis.tick_top()
    axes.tick_params(axis="x", length=0)
    axes.spines[:].set_visible(False)
