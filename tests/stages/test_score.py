"""metrics.json and the tables behind it."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.core import paths
from pipeline.core.errors import InputError
from pipeline.core.labels import LABELS, target_matrix
from pipeline.core.params import load
from pipeline.data.fold_table import read_folds
from pipeline.evaluation import result_files
from pipeline.stages import ensemble, score
from tests.fixtures.competition import TEST, TRAIN, sklearn_macro_f1

TRUTH = Path("data/one/test_truth.csv")


@pytest.mark.usefixtures("finished_run")
def test_metrics_are_scikit_learns() -> None:
    metrics = json.loads(paths.METRICS.read_text())
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
    assert pd.read_csv(paths.TABLES / "policies.csv").query("chosen")["policy"].tolist() == [load().ensemble.thresholds]
    assert shown_calibrations() == ["as blended", "after temperature"]


@pytest.mark.usefixtures("finished_run")
def test_the_test_set_is_scored_where_its_truth_is_known_in_whatever_order() -> None:
    metrics = json.loads(paths.METRICS.read_text())
    decided = result_files.load_blend(result_files.TEST)
    truth_by_id = pd.read_csv(TRUTH, dtype=str).set_index("Id")["Target"]
    assert truth_by_id.index.tolist() == decided.ids[::-1].tolist()
    targets = truth_by_id[decided.ids.tolist()].tolist()
    assert metrics["test"]["macro_f1"] == pytest.approx(sklearn_macro_f1(target_matrix(targets), decided.decisions))
    assert metrics["test"]["samples"] == TEST
    labels = pd.read_csv(paths.TABLES / "test_labels.csv")
    assert labels["f1"].mean() == pytest.approx(metrics["test"]["macro_f1"])
    alike = [result_files.load_blend(result_files.single_fold_test(fold)).decisions for fold in load().folds.ids]
    assert metrics["test_as_held_out"]["macro_f1"] == pytest.approx(
        sklearn_macro_f1(target_matrix(targets * len(alike)), np.concatenate(alike))
    )
    assert metrics["test_as_held_out"]["samples"] == TEST


@pytest.mark.usefixtures("finished_run")
def test_only_what_there_is_is_written_and_the_rest_taken_away() -> None:
    with_truth = {path.stem for path in paths.TABLES.iterdir()}
    TRUTH.unlink()
    path = Path("params.yaml")
    path.write_text(path.read_text().replace("calibration: temperature", "calibration: none"))
    ensemble.main()
    score.main()
    assert shown_calibrations() == ["as blended"]
    assert "test" not in json.loads(paths.METRICS.read_text())
    assert sorted(path.name for path in paths.TABLES.iterdir()) == [
        "blend.csv",
        "blends.csv",
        "calibration.csv",
        "calibrations.csv",
        "confusions.csv",
        "examples.csv",
        "folds.csv",
        "history.csv",
        "label-issues.csv",
        "labels.csv",
        "policies.csv",
        "pr_curves.csv",
        "test-leak.csv",
    ]
    assert with_truth - {path.stem for path in paths.TABLES.iterdir()} == {"test_labels"}
    assert sorted(path.name for path in paths.PLOTS.iterdir()) == [
        "folds.png",
        "labels.png",
        "learning-curves.png",
        "precision-recall.png",
    ]


@pytest.mark.usefixtures("finished_run")
@pytest.mark.parametrize("wrong", ["another", "repeated", "too many", "empty target", "no column"])
def test_a_truth_that_does_not_fit_is_refused(wrong: str) -> None:
    table = pd.read_csv(TRUTH, dtype=str)
    if wrong == "another":
        table.loc[0, "Id"] = "stranger"
    elif wrong == "repeated":
        table.loc[0, "Id"] = str(table["Id"].iloc[1])
    elif wrong == "too many":
        table = pd.concat([table, pd.DataFrame({"Id": ["stranger"], "Target": ["0"]})])
    elif wrong == "empty target":
        table.loc[0, "Target"] = ""
    else:
        table = table[["Id"]]
    table.to_csv(TRUTH, index=False)
    with pytest.raises(InputError, match=r"test_truth\.csv"):
        score.score_test(load(), np.full(28, 0.5))


@pytest.mark.usefixtures("finished_run")
@pytest.mark.parametrize("written", ["semicolons", "names", "utf-16", "capitals"])
def test_a_truth_is_read_as_the_training_table_is(written: str) -> None:
    expected = score.score_test(load(), np.full(28, 0.5))
    table = pd.read_csv(TRUTH, dtype=str)
    if written == "names":
        ids = table["Target"].str.split()
        table["Target"] = ids.map(lambda labels: "|".join(LABELS[int(label)] for label in labels))
    elif written == "capitals":
        table = table.rename(columns={"Id": "ID", "Target": "TARGET"})
    separator, encoding = (";" if written == "semicolons" else ","), ("utf-16" if written == "utf-16" else "utf-8")
    table.to_csv(TRUTH, index=False, sep=separator, encoding=encoding)
    found = score.score_test(load(), np.full(28, 0.5))
    assert repr(found) == repr(expected)


@pytest.mark.usefixtures("finished_run")
def test_nothing_is_written_where_the_truth_does_not_fit() -> None:
    TRUTH.write_text("Id\nx\n")
    for path in (paths.METRICS, paths.TABLES / "labels.csv"):
        path.unlink()
    with pytest.raises(InputError, match=r"test_truth\.csv"):
        score.main()
    assert not paths.METRICS.exists()
    assert not (paths.TABLES / "labels.csv").exists()


def shown_calibrations() -> list[str]:
    return pd.read_csv(paths.TABLES / "calibration.csv")["probabilities"].unique().tolist()


@pytest.mark.usefixtures("finished_run")
def test_label_issues_are_judged_by_calibrated_out_of_fold_probabilities() -> None:
    held_out = result_files.load_blend(result_files.HELD_OUT)
    issues = pd.read_csv(paths.TABLES / "label-issues.csv", dtype={"id": str})
    assert list(issues) == ["id", "label", "name", "given", "suggested", "confidence"]
    assert len(issues) > 0
    position = {id_: row for row, id_ in enumerate(held_out.ids.tolist())}
    target = read_folds().set_index("id")["target"]
    for _, issue in issues.iterrows():
        present = held_out.probabilities[position[issue["id"]], issue["label"]]
        assert issue["confidence"] == pytest.approx(present if issue["suggested"] else 1 - present)
        assert (str(issue["label"]) in target[issue["id"]].split()) == issue["given"] != issue["suggested"]
