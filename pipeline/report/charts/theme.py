"""How every picture looks, as a PNG and as part of a page that may be light or dark."""

import io
import re
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.typing import RcKeyType

INK, MUTED, RULE = "#1B1B1F", "#6B6B70", "#E2E2E6"
BLUE, ORANGE, GREEN, PINK, YELLOW, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
PALETTE = (BLUE, ORANGE, GREEN, PINK, YELLOW, SKY)
"""Okabe and Ito's colours, distinct for colour-blind readers as well."""

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
"""The page's CSS variable for each colour: a page changes to dark without drawing anew."""

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


def panel(draw: Callable[[Axes], None], width: float, height: float, title: str = "") -> Figure:
    """A figure of one set of axes, ``width`` by ``height`` inches, with a title at its left edge."""
    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=min(9, 4.2 * width))
        draw(figure.subplots())
    return figure


def save_png(figure: Figure, path: Path) -> None:
    """Write a PNG whose bytes depend on nothing but the figure."""
    figure.savefig(path, format="png", dpi=150, bbox_inches="tight", pad_inches=0.2, metadata={"Software": None})


def to_svg(figure: Figure, description: str) -> str:
    """The figure as an SVG element that takes the page's colours and fonts.

    Args:
        figure: drawn in the colours of this module.
        description: for readers who cannot see it; two figures of a page must not share one.
    """
    buffer = io.StringIO()
    # The salt decides the identifiers inside, which must not be random, nor those of another figure.
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
