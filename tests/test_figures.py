"""Figures show what the tables hold, also where a table is small or has gaps."""

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.report.figures import draw_fold_balance, draw_label_scores, draw_learning_curves, save


def test_every_fold_and_its_mean_is_drawn(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    history = pd.DataFrame(
        [
            (model, fold, epoch, *generator.random(4))
            for model in ("one", "two")
            for fold in (0, 1, 4)
            for epoch in (1, 2, 3)
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
    save(figure, tmp_path / "one.png")
    save(figure, tmp_path / "two.png")
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
    assert [text.get_text() for text in scores.get_yticklabels()] == ["Cytosol", "Nucleoli"]
    assert np.asarray(scores.lines[0].get_xdata()).tolist() == [0.5, 0.8]
    assert [text.get_text().strip() for text in amounts.texts] == ["9", "4"]
    assert "mean 0.650" in [text.get_text() for text in scores.texts]


def test_folds_are_coloured_by_their_deviation_from_an_even_share() -> None:
    positives = pd.DataFrame([[1, 3], [0, 0], [10, 10]], index=["Rare", "Absent", "Common"], columns=[0, 2])
    axes = draw_fold_balance(positives).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["Common", "Rare"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["fold 0", "fold 2"]
    assert [text.get_text() for text in axes.texts] == ["10", "10", "1", "3"]
    shown = axes.images[0].get_array()
    assert shown is not None
    np.testing.assert_allclose(shown, [[0.0, 0.0], [-0.5, 0.5]])
