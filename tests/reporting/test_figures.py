"""Figures show what the tables hold, also where a table is small or has gaps."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.colors import to_hex

from pipeline.reporting.charts import BLUE, DEEPEST, ORANGE, save_png
from pipeline.reporting.figures import (
    draw_fold_balance,
    draw_label_scores,
    draw_learning_curves,
    draw_precision_recall_grid,
)


def test_every_fold_and_its_mean_is_drawn(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    history = pd.DataFrame(
        [
            (model, fold, epoch, *generator.random(4))
            for model in ("one", "two")
            for fold in (0, 1, 4)
            for epoch in (0, 1, 2)
        ],
        columns=[
            "model",
            "fold",
            "epoch",
            "train_loss",
            "held_out_loss",
            "held_out_macro_f1",
            "held_out_mean_average_precision",
        ],
    )
    figure = draw_learning_curves(history)
    _, macro_f1, _ = figure.axes
    assert len(macro_f1.lines) == 2 * (3 + 1)
    expected = history[history["model"] == "one"].groupby("epoch")["held_out_macro_f1"].mean()
    np.testing.assert_allclose(np.asarray(macro_f1.lines[3].get_ydata()), expected)
    assert np.asarray(macro_f1.lines[3].get_xdata()).tolist() == [1, 2, 3], "after the first, the second, the third"
    save_png(figure, tmp_path / "one.png")
    save_png(figure, tmp_path / "two.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_labels_are_sorted_by_f1_and_absent_ones_left_out() -> None:
    labels = pd.DataFrame(
        {
            "name": ["Nucleoli", "Rods & rings", "Cytosol"],
            "positives": [4, 0, 9],
            "f1": [0.8, 0.0, 0.5],
            "f1_low": [0.5, 0.0, 0.3],
            "f1_high": [0.9, 0.0, 0.6],
        }
    )
    scores, amounts = draw_label_scores(labels, 0.95).axes
    assert [text.get_text() for text in scores.get_yticklabels()] == ["Nucleoli", "Cytosol"], "the best on top"
    assert scores.yaxis.get_inverted()
    assert np.asarray(scores.lines[0].get_xdata()).tolist() == [0.8, 0.5]
    assert [text.get_text().strip() for text in amounts.texts] == ["4", "9"]
    assert "mean 0.650" in [text.get_text() for text in scores.texts]


def test_folds_are_coloured_by_their_deviation_from_an_even_share() -> None:
    positives = pd.DataFrame([[1, 3], [0, 0], [10, 10]], index=["Rare", "Absent", "Common"], columns=[0, 2])
    axes = draw_fold_balance(positives).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["Common", "Rare"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["fold 0", "fold 2"]
    assert [text.get_text() for text in axes.texts] == ["10", "10", "1", "3"]
    tints = np.asarray(axes.collections[0].get_facecolor())
    np.testing.assert_allclose(tints[:, 3], np.array([0, 0, 0.5, 0.5]) * DEEPEST)
    assert to_hex(tints[2]) == ORANGE.lower(), "too few"
    assert to_hex(tints[3]) == BLUE.lower(), "too many"


def test_each_label_that_occurs_has_its_curve_and_the_point_of_its_decisions() -> None:
    curves = pd.DataFrame({"label": [0, 0, 2, 2], "recall": [1.0, 0.0, 1.0, 0.0], "precision": [0.3, 1.0, 0.5, 0.9]})
    labels = pd.DataFrame(
        {
            "label": [0, 1, 2],
            "name": ["Cytosol", "Absent", "Nucleoli"],
            "positives": [5, 0, 3],
            "precision": [0.4, 0.0, 0.8],
            "recall": [0.6, 0.0, 0.7],
        }
    )
    shown = [axes for axes in draw_precision_recall_grid(curves, labels).axes if axes.lines]
    assert [axes.get_title(loc="left") for axes in shown] == ["Cytosol", "Nucleoli"]
    curve, point = shown[1].lines
    assert np.asarray(curve.get_xydata()).tolist() == [[0.0, 0.9], [1.0, 0.5]]
    assert np.asarray(point.get_xydata()).tolist() == [[0.7, 0.8]]
