"""The benchmark on probabilities of competitors, at toy size."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from benchmarks import real_predictions
from benchmarks.real_predictions import compare
from pipeline.core.errors import InputError
from pipeline.core.labels import format_target

ROWS = 60


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Scores of two networks, the truth of half of the rows, and a submission."""
    generator = np.random.default_rng(0)
    truth = np.zeros((ROWS, 28), dtype=np.bool_)
    truth[np.arange(ROWS), generator.integers(0, 5, ROWS)] = True
    truth[:2, 9] = True
    ids = np.array([f"row-{(number * 7) % ROWS:02}" for number in range(ROWS)])
    networks = {name: (0.5 * generator.random(truth.shape) + 0.5 * truth).astype(np.float32) for name in ("one", "two")}
    np.savez(tmp_path / "scores.npz", allow_pickle=False, ids=ids, **networks)
    table = pd.DataFrame({"Id": ids, "Target": [format_target(row.nonzero()[0].tolist()) for row in truth]})
    table.iloc[::-2].to_csv(tmp_path / "truth.csv", index=False)
    table.rename(columns={"Target": "Predicted"}).replace("4", "").to_csv(tmp_path / "peer.csv", index=False)
    return tmp_path / "scores.npz", tmp_path / "truth.csv", tmp_path / "peer.csv"


def test_the_last_line_is_the_default_s_score_beside_its_peers(
    files: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scores, truth, peer = files
    monkeypatch.setattr(real_predictions, "RESAMPLES", 20)
    compare(scores, truth, [f"theirs={peer}"], repeats=1)
    printed = capsys.readouterr().out
    figures = json.loads(printed.splitlines()[-1])
    known = pd.read_csv(truth, dtype=str)["Target"].str.split()
    target = np.array([[str(label) in labels for label in range(28)] for labels in known])
    assert (figures["rows"], figures["labels"]) == (ROWS // 2, int((target.sum(axis=0) >= 3).sum()))
    # The peer never gives label 4 and is right otherwise.
    decided = target.copy()
    decided[:, 4] = False
    counted = np.flatnonzero(target.sum(axis=0) >= 3)
    assert figures["peers"]["theirs"] == pytest.approx(
        f1_score(target, decided, labels=counted, average="macro", zero_division=0)
    )
    assert figures["low"] <= figures["cross_fitted_macro_f1"] <= figures["high"]
    assert figures["cross_fitted_macro_f1"] > 0.8
    for line in ("as in params.yaml", "per_label", "ranks", "platt", "one", "two", "theirs"):
        assert line in printed


def test_files_that_do_not_fit_are_named(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    scores, truth, peer = files
    with pytest.raises(InputError, match=r"truth\.csv is not an npz file"):
        compare(truth, truth, [], repeats=1)
    with pytest.raises(InputError, match=r"peer\.csv is not a CSV with the columns Id and Target"):
        compare(scores, peer, [], repeats=1)
    (tmp_path / "strange.csv").write_text("Id,Target\nstranger,1\n")
    with pytest.raises(InputError, match=r"strange\.csv: 1 of its ids are not in .*scores\.npz"):
        compare(scores, tmp_path / "strange.csv", [], repeats=1)
    (tmp_path / "part.csv").write_text("Id,Predicted\nrow-00,1\n")
    with pytest.raises(InputError, match=r"part\.csv: rows of the truth file are missing"):
        compare(scores, truth, [f"part={tmp_path / 'part.csv'}"], repeats=1)
