"""The plots: one function per kind of plot, drawing on given axes, and their style and export as PNG or SVG.

PNG files go to plots/. SVG goes into the report, where colours are CSS variables, so that it can be light or dark.
"""

import io
import re
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from matplotlib.typing import RcKeyType

Floats = npt.NDArray[np.float64]

INK, MUTED, RULE = "#1B1B1F", "#6B6B70", "#E2E2E6"
BLUE, ORANGE, GREEN, PINK, YELLOW, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
PALETTE = (BLUE, ORANGE, GREEN, PINK, YELLOW, SKY)
"""The colours of Okabe and Ito, which colour-blind readers can distinguish."""

VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    RULE: "rule",
    BLUE: "blue",
    ORANGE: "orange",
    GREEN: "green",
    PINK: "pink",
    YELLOW: "yellow",
    SKY: "sky",
}
"""The CSS variable of the report for each colour; switching to dark mode changes only these."""

STYLE: dict[RcKeyType, Any] = {
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "svg.fonttype": "none",
}

DEEPEST = 0.65
"""Opacity of the strongest tint, at which text is still legible."""


def panel(draw: Callable[[Axes], None], width: float, height: float, title: str = "") -> Figure:
    """A figure with one set of axes, ``width`` by ``height`` inches, and a left-aligned title."""
    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=min(9, 4.2 * width))
        draw(figure.subplots())
    return figure


def save_png(figure: Figure, path: Path) -> None:
    """Write a PNG without metadata, so that the same figure gives the same bytes."""
    figure.savefig(path, format="png", dpi=150, bbox_inches="tight", pad_inches=0.2, metadata={"Software": None})


def to_svg(figure: Figure, description: str) -> str:
    """Convert a figure to an SVG element that uses the colours and fonts of the report.

    Args:
        figure: drawn in the colours of this module.
        description: text alternative for screen readers; must be unique within a page.
    """
    buffer = io.StringIO()
    # The salt makes identifiers inside the SVG reproducible, and different from those of other figures.
    with rc_context(STYLE | {"svg.hashsalt": description}):
        figure.savefig(
            buffer, format="svg", transparent=True, metadata=dict.fromkeys(["Creator", "Date", "Format", "Type"])
        )
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    for colour, variable in VARIABLES.items():
        drawing = drawing.replace(colour.lower(), f"var(--{variable})")
    drawing = re.sub(r'<g id="[^"]*"', "<g", drawing)
    drawing = re.sub(r"<style.*?</style>|font-family: [^;]*; ?", "", drawing, flags=re.DOTALL)
    width = figure.get_figwidth() * 96
    opening = f'<svg role="img" aria-label="{escape(description)}" style="width: {width:.0f}px"'
    return re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', rf"{opening} \1>", drawing, count=1)


def draw_epochs(axes: Axes, history: pd.DataFrame, held_out: str, training: str | None = None) -> None:
    """Learning curves: a thin line per fold, a thick line for the mean of each model; training values dotted.

    Args:
        axes: to draw on.
        history: model, fold, epoch and the columns below, a row per model, fold and epoch. Epochs without an evaluation
            on the held-out fold are missing.
        held_out: the column to draw.
        training: another column, to draw as a dotted line.
    """
    for position, (model, curves) in enumerate(history.groupby("model", sort=False)):
        colour = PALETTE[position % len(PALETTE)]
        if training:
            _draw_folds(axes, curves, training, colour, ":", "")
        _draw_folds(axes, curves, held_out, colour, "-", str(model))
    if training:
        axes.plot([], [], color=MUTED, linewidth=2.2, label="held out")
        axes.plot([], [], color=MUTED, linewidth=2.2, linestyle=":", label="training")
        axes.legend(loc="upper right", fontsize=8)
    axes.set_xlabel("epochs finished")
    axes.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axes.grid(axis="y")


def draw_precision_recall(axes: Axes, curve: pd.DataFrame, chosen: tuple[float, float]) -> None:
    """A precision-recall curve, and the point of the decisions.

    Args:
        axes: to draw on.
        curve: ``recall`` and ``precision``, a row per threshold.
        chosen: recall and precision of the decisions.
    """
    curve = curve.sort_values("recall", kind="stable")
    recall, precision = curve["recall"], curve["precision"]
    axes.fill_between(recall, precision, step="post", color=BLUE, alpha=0.12, linewidth=0)
    axes.step(recall, precision, where="post", color=BLUE, linewidth=1.4)
    axes.plot(*chosen, "o", color=ORANGE, markersize=5, clip_on=False)
    _unit_square(axes)


def draw_calibration(axes: Axes, bins: dict[str, pd.DataFrame]) -> None:
    """A reliability diagram: share of positives against mean probability, with the diagonal of perfect calibration.

    Args:
        axes: to draw on.
        bins: at most two tables with ``confidence``, ``observed`` and ``n`` of each bin, by name for the legend.
    """
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle="--")
    for (name, table), colour in zip(bins.items(), (ORANGE, BLUE), strict=False):
        filled = table[table["n"] > 0]
        axes.plot(filled["confidence"], filled["observed"], color=colour, linewidth=1.4, label=name)
        sizes = 8 + 60 * np.sqrt(filled["n"] / filled["n"].max())
        axes.scatter(filled["confidence"], filled["observed"], s=sizes, color=colour, linewidths=0)
    axes.set_xlabel("mean probability")
    axes.set_ylabel("share of positives")
    axes.legend(loc="upper left")
    _unit_square(axes)


def draw_intervals(axes: Axes, table: pd.DataFrame, reference: tuple[str, float] | None = None) -> None:
    """Estimates as dots on their confidence intervals, the first row on top.

    Args:
        axes: to draw on.
        table: ``name``, ``estimate``, ``low`` and ``high``, a row each; NaN ends for an estimate without an interval.
        reference: name and position of a vertical line.
    """
    rows = np.arange(len(table))
    axes.hlines(rows, table["low"], table["high"], color=SKY, linewidth=4)
    axes.plot(table["estimate"], rows, "o", color=BLUE, markersize=6)
    if reference:
        name, position = reference
        axes.axvline(position, color=ORANGE, linewidth=1.2, linestyle="--", zorder=0)
        axes.annotate(name, (position, 1), xycoords=("data", "axes fraction"), color=ORANGE, ha="center", va="bottom")
    farthest = table[["estimate", "high"]].max().max()
    axes.set_xlim(-0.02, min(1.02, 1.1 * farthest + 0.02))
    axes.grid(axis="x")
    name_rows(axes, table["name"].tolist())


def draw_counts(axes: Axes, names: Sequence[str], counts: Sequence[int]) -> None:
    """Counts as labelled bars, the first row on top; on a logarithmic scale if the largest is 30 times the smallest."""
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
    """Distributions of several columns: the median as a dot, the middle 50% and 90% of the values as bars.

    Args:
        axes: to draw on.
        names: of the columns.
        samples: (n, columns), at most two sets, by name for the legend.
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


def draw_heat_map(
    axes: Axes,
    values: Floats,
    texts: Sequence[Sequence[str]] | None,
    row_names: Sequence[str],
    column_names: Sequence[str],
) -> None:
    """A heat map: blue for positive and orange for negative values, with an opacity proportional to their size.

    Args:
        axes: to draw on.
        values: (R, C), clipped to -1..1.
        texts: (R, C), text in each cell, if any.
        row_names: R, the first on top.
        column_names: C, rotated by 90 degrees if one is long.
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


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Label rows 0, 1, 2, ..., the first on top."""
    axes.set_yticks(range(len(names)), list(names), color=INK)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_ylim(len(names) - 0.4, -0.6)


def _draw_folds(axes: Axes, curves: pd.DataFrame, column: str, colour: str, style: str, name: str) -> None:
    by_epoch = curves.pivot_table(index="epoch", columns="fold", values=column)
    finished = by_epoch.index + 1
    marker = "o" if len(by_epoch) == 1 else ""  # a line through a single point is invisible
    axes.plot(finished, by_epoch, color=colour, linewidth=0.8, alpha=0.35, linestyle=style, marker=marker, markersize=3)
    mean = by_epoch.mean(axis=1)
    axes.plot(finished, mean, color=colour, linewidth=2.2, linestyle=style, marker=marker, label=name)


def _unit_square(axes: Axes) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xticks([0, 0.5, 1], ["0", ".5", "1"])
    axes.set_yticks([0, 0.5, 1], ["0", ".5", "1"])
