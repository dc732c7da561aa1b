"""metrics.json and the tables behind it."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.core import paths
from pipeline.core.errors import InputError
from pipeline.core.labels import target_matrix
from pipeline.core.params import load
from pipeline.data.fold_table import read_folds
from pipeline.evaluation import result_files
from pipeline.stages import ensemble, score
from tests.fixtures.competition import TEST, TRAIN, blend_ids, prepare, run_the_rest, sklearn_macro_f1, write_truth


@pytest.fixture
def test_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A run of two sources up to the end of tta, in a folder of its own; the truth of its test set, in its order."""
    monkeypatch.chdir(tmp_path)
    return prepare()


@pytest.mark.usefixtures("test_targets")
def test_metrics_are_scikit_learns() -> None:
    metrics = run_the_rest()
    held_out = result_files.load_blend(result_files.HELD_OUT)
    table = read_folds()
    truth = target_matrix(table["target"])
    assert metrics["macro_f1"] == pytest.approx(sklearn_macro_f1(truth, held_out.decisions))
    assert metrics["macro_f1_low"] < metrics["macro_f1"] < metrics["macro_f1_high"]
    assert (metrics["samples"], metrics["labels_present"]) == (TRAIN + 30, 6)
    by_fold = []
    for fold, shown in metrics["folds"].items():
        rows = (table["fold"] == int(fold)).to_numpy()
        by_fold.append(sklearn_macro_f1(truth[rows], held_out.decisions[rows]))
        assert shown == pytest.approx(by_fold[-1])
    assert metrics["fold_mean"] == pytest.approx(np.mean(by_fold))
    assert metrics["fold_sd"] == pytest.approx(np.std(by_fold, ddof=1))
    assert metrics["macro_f1"] > 2 * max(metrics["baselines"].values())
    assert "test" not in metrics
    assert sorted(path.name for path in paths.TABLES.iterdir()) == [
        "blend.csv",
        "blends.csv",
        "calibration.csv",
        "calibrations.csv",
        "confusions.csv",
        "examples.csv",
        "folds.csv",
        "history.csv",
        "labels.csv",
        "policies.csv",
        "pr_curves.csv",
    ]
    assert sorted(path.name for path in paths.PLOTS.iterdir()) == [
        "folds.png",
        "labels.png",
        "learning-curves.png",
        "precision-recall.png",
    ]
    assert pd.read_csv(paths.TABLES / "policies.csv").query("chosen")["policy"].tolist() == [load().ensemble.thresholds]


@pytest.mark.usefixtures("test_targets")
@pytest.mark.parametrize(
    ("calibration", "stages"), [("none", ["as blended"]), ("temperature", ["as blended", "after temperature"])]
)
def test_calibration_is_shown_as_often_as_there_is_one(calibration: str, stages: list[str]) -> None:
    path = Path("params.yaml")
    path.write_text(re.sub(r"calibration: \w+", f"calibration: {calibration}", path.read_text()))
    run_the_rest()
    assert pd.read_csv(paths.TABLES / "calibration.csv")["probabilities"].unique().tolist() == stages


def test_the_test_set_is_scored_where_its_truth_is_known_in_whatever_order(test_targets: list[str]) -> None:
    ids = blend_ids()
    write_truth(ids[::-1], test_targets[::-1])
    metrics = run_the_rest()
    decided = result_files.load_blend(result_files.TEST)
    assert metrics["test"]["macro_f1"] == pytest.approx(
        sklearn_macro_f1(target_matrix(test_targets), decided.decisions)
    )
    assert metrics["test"]["samples"] == TEST
    labels = pd.read_csv(paths.TABLES / "test_labels.csv")
    assert labels["f1"].mean() == pytest.approx(metrics["test"]["macro_f1"])
    alike = [result_files.load_blend(result_files.as_held_out(fold)).decisions for fold in load().folds.ids]
    assert metrics["test_as_held_out"]["macro_f1"] == pytest.approx(
        sklearn_macro_f1(target_matrix(test_targets * len(alike)), np.concatenate(alike))
    )
    assert metrics["test_as_held_out"]["samples"] == TEST


@pytest.mark.parametrize("wrong", ["another", "repeated", "too many", "empty target", "no column"])
def test_a_truth_that_does_not_fit_is_refused(test_targets: list[str], wrong: str) -> None:
    ids = blend_ids()
    if wrong == "another":
        write_truth([*ids[:-1], "stranger"], test_targets)
    elif wrong == "repeated":
        write_truth([*ids[:-1], ids[0]], test_targets)
    elif wrong == "too many":
        write_truth([*ids, "stranger"], [*test_targets, "0"])
    elif wrong == "empty target":
        write_truth(ids, ["", *test_targets[1:]])
    else:
        write_truth(ids, test_targets)
        (paths.source("one") / "test_truth.csv").write_text("Id\nx\n")
    ensemble.main()
    with pytest.raises(InputError, match=r"test_truth\.csv"):
        score.main()
    assert not paths.METRICS.exists()
