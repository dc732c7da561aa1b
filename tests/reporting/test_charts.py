"""Charts show what they are given, and take their colours from the page."""

import re

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import Collection

from pipeline.reporting.charts import (
    VARIABLES,
    draw_calibration,
    draw_counts,
    draw_intervals,
    draw_spreads,
    panel,
    to_svg,
)


def drawing(title: str) -> str:
    table = pd.DataFrame({"name": ["a & b"], "estimate": [0.5], "low": [0.4], "high": [0.7]})
    return to_svg(panel(lambda axes: draw_intervals(axes, table, ("mean", 0.5)), 3.6, 2, "Some <title>"), title)


def ends(bars: Collection) -> npt.NDArray[np.float64]:
    """Where each horizontal line begins and ends."""
    return np.array([np.asarray(path.vertices)[:, 0] for path in bars.get_paths()])


def test_a_drawing_takes_its_colours_and_fonts_from_the_page() -> None:
    svg = drawing("F1 & more")
    assert not [colour for colour in VARIABLES if colour.lower() in svg.lower()]
    assert {"var(--ink)", "var(--blue)", "var(--sky)"} <= set(re.findall(r"var\(--\w+\)", svg))
    assert "font-family" not in svg
    assert "<style" not in svg, "it would apply to the whole page"
    assert svg.startswith('<svg role="img" aria-label="F1 &amp; more" style="width: 346px" viewBox="0 0 259.2 144">')
    assert "Some &lt;title&gt;" in svg


def test_drawings_are_the_same_each_time_and_share_no_names_with_others() -> None:
    one, other = drawing("one"), drawing("other")
    assert one == drawing("one")
    names = [set(re.findall(r' id="([^"]+)"', svg)) for svg in (one, other)]
    assert names[0]
    assert not names[0] & names[1]


def test_a_row_without_an_interval_is_drawn_as_its_dot_alone() -> None:
    table = pd.DataFrame({"name": ["a", "b"], "estimate": [0.2, 0.1], "low": [0.1, np.nan], "high": [0.4, np.nan]})
    (axes,) = panel(lambda axes: draw_intervals(axes, table), 3, 2).axes
    assert np.asarray(axes.lines[0].get_xdata()).tolist() == [0.2, 0.1]
    bars = ends(axes.collections[0])
    assert bars[0].tolist() == [0.1, 0.4]
    assert np.isnan(bars[1]).all()
    assert 0.4 < axes.get_xlim()[1] < 0.6, "no room is wasted on scores that none has"


def test_counts_are_on_a_logarithmic_scale_only_where_they_span_far() -> None:
    def axes(*counts: int) -> Axes:
        return panel(lambda axes: draw_counts(axes, ["x"] * len(counts), counts), 3, 2).axes[0]

    assert axes(12885, 11).get_xscale() == "log"
    assert axes(100, 40).get_xscale() == "linear"
    assert [text.get_text() for text in axes(12885, 0).texts] == [" 12,885", " 0"]


def test_spreads_are_numpys_percentiles() -> None:
    values = np.random.default_rng(0).random((101, 2))
    (axes,) = panel(lambda axes: draw_spreads(axes, ["green", "blue"], {"training": values}), 3, 2).axes
    np.testing.assert_allclose(np.asarray(axes.lines[0].get_xdata()), np.median(values, axis=0))
    whole, middle = map(ends, axes.collections)
    np.testing.assert_allclose(whole, np.percentile(values, (5, 95), axis=0).T)
    np.testing.assert_allclose(middle, np.percentile(values, (25, 75), axis=0).T)


def test_empty_bins_are_left_out_of_the_calibration() -> None:
    bins = pd.DataFrame({"confidence": [0.1, np.nan, 0.9], "observed": [0.2, np.nan, 0.8], "n": [9, 0, 1]})
    (axes,) = panel(lambda axes: draw_calibration(axes, {"before": bins}), 3, 3).axes
    assert np.asarray(axes.lines[1].get_xydata()).tolist() == [[0.1, 0.2], [0.9, 0.8]]
    assert axes.get_legend_handles_labels()[1] == ["before"]
