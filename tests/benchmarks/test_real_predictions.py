"""The benchmark on probabilities of competitors, at toy size."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from benchmarks import real_predictions
from benchmarks.real_predictions import (
    compare,
    compare_files,
    cross_fit_repeatedly,
    procedures,
    read_judged,
    read_run,
    score,
)
from pipeline.core.errors import InputError
from pipeline.core.labels import format_target
from pipeline.core.params import load
from pipeline.evaluation.decision_rule import CrossFit, DecisionRule, cross_fit
from pipeline.evaluation.metrics import Bools, Floats
from pipeline.evaluation.prediction_files import Predictions

ROWS = 60
REAL = Path("../shared/hpa/predictions")

Fit = Callable[[Floats, Bools], DecisionRule]


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
    compare_files(scores, truth, [f"theirs={peer}"], repeats=1)
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
        compare_files(truth, truth, [], repeats=1)
    with pytest.raises(InputError, match=r"peer\.csv is not a CSV with the columns Id and Target"):
        compare_files(scores, peer, [], repeats=1)
    (tmp_path / "strange.csv").write_text("Id,Target\nstranger,1\n")
    with pytest.raises(InputError, match=r"strange\.csv: 1 of its ids are not in .*scores\.npz"):
        compare_files(scores, tmp_path / "strange.csv", [], repeats=1)
    (tmp_path / "part.csv").write_text("Id,Predicted\nrow-00,1\n")
    with pytest.raises(InputError, match=r"part\.csv: rows of the truth file are missing"):
        compare_files(scores, truth, [f"part={tmp_path / 'part.csv'}"], repeats=1)


def test_a_run_is_split_by_its_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = np.random.default_rng(0)
    group = np.arange(ROWS) // 3
    label = group % 4
    ids = np.array([f"sample-{number:02}" for number in generator.permutation(ROWS)])
    folds = pd.DataFrame(
        {"id": ids, "source": "toy", "row": range(ROWS), "target": label, "group": group, "fold": group % 2}
    )
    (tmp_path / "data").mkdir()
    folds.to_csv(tmp_path / "data/folds.csv", index=False)
    shutil.copy("params.yaml", tmp_path)
    probabilities = (0.3 * generator.random((ROWS, 28)) + 0.6 * np.eye(28)[label]).astype(np.float32)
    for model in load().models:
        (tmp_path / "predictions" / model).mkdir(parents=True)
        for fold in (0, 1):
            own = np.flatnonzero(folds["fold"] == fold)[::-1]
            found = Predictions(ids[own], probabilities[own], ids[:1], probabilities[:1])
            found.save(tmp_path / "predictions" / model / f"fold-{fold}.npz")
    judged = read_run(tmp_path)
    assert list(judged.networks) == list(load().models)
    for read in judged.networks.values():
        np.testing.assert_array_equal(read, probabilities)
    np.testing.assert_array_equal(judged.truth, np.eye(28, dtype=np.bool_)[label])
    # Samples of a group share their labels, so a split by sample would show a rule the truth that it is judged on.
    assert len(np.unique(judged.groups)) == ROWS // 3
    assert all(len(np.unique(judged.groups[group == one])) == 1 for one in np.unique(group))
    monkeypatch.setattr(real_predictions, "RESAMPLES", 20)
    splits = []

    def recorded(members: Floats, truth: Bools, folds: npt.NDArray[np.int64], fit: Fit) -> CrossFit:
        splits.append(folds)
        return cross_fit(members, truth, folds, fit)

    monkeypatch.setattr(real_predictions, "cross_fit", recorded)
    compare(judged, [], repeats=1)
    assert "bagged, shrinkage 5" in capsys.readouterr().out
    assert all(len(np.unique(folds[judged.groups == one])) == 1 for folds in splits for one in range(ROWS // 3))


@pytest.mark.skipif(not REAL.exists(), reason="needs real predictions")
def test_on_real_predictions_the_default_scores_as_measured() -> None:
    judged, _ = read_judged(REAL / "holdout_scores.npz", REAL / "holdout_truth.csv")
    default, *_ = procedures(list(judged.networks), load().ensemble)
    # Single splits differ by .01.
    assert score(cross_fit_repeatedly(default, judged, 4), judged)[0] == pytest.approx(0.596, abs=0.015)
