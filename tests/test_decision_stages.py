"""From packed indexes and predictions to folds, decisions, scores and the submission, as the stages do it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from pipeline import paths, summary
from pipeline.atlas.folds import read_folds
from pipeline.atlas.packed import COLUMNS, read_index
from pipeline.errors import InputError
from pipeline.labels import format_target, parse_target, target_matrix
from pipeline.params import load
from pipeline.scoring import blend, predictions
from pipeline.scoring.predictions import Predictions
from pipeline.scoring.thresholds import POLICIES, decide
from pipeline.stages import ensemble, folds, score, submit

COMMITTED = Path("params.yaml").read_text()

TRAIN, TEST = 90, 25

CURVE = {
    "epoch": [1, 2],
    "learning_rate": [0.1, 0.0],
    "train_loss": [0.5, 0.4],
    "held_out_loss": [0.5, 0.45],
    "held_out_macro_f1": [0.1, 0.2],
    "held_out_mean_average_precision": [0.1, 0.2],
    "images_per_second": [10.0, 11.0],
}


def write_index(source: str, train: int, test: int, seed: int) -> list[str]:
    """An index as ``pack`` writes it; half of the training samples share an antibody in threes. Returns all targets."""
    generator = np.random.default_rng(seed)
    targets = [
        format_target(generator.choice(6, size=generator.integers(1, 3), replace=False).tolist())
        for _ in range(train + test)
    ]
    table = pd.DataFrame({name: [0] * (train + test) for name in COLUMNS})
    table["row"] = range(train + test)
    table["phash"] = ""
    # Not in alphabetical order, so that one who sorts is found out.
    table["id"] = [f"{source}-{(row * 37) % 211:03}" for row in range(train + test)]
    table["split"] = ["train"] * train + ["test"] * test
    table["target"] = targets[:train] + [""] * test
    table["group"] = [f"HPA{row // 3:06}" if row < train // 2 else "" for row in range(train + test)]
    paths.packed(source).mkdir(parents=True)
    table.to_csv(paths.packed(source) / "index.csv", index=False)
    return targets


def informed(targets: npt.NDArray[np.bool_], seed: int) -> npt.NDArray[np.float32]:
    """Probabilities that know something of the truth."""
    noise = np.random.default_rng(seed).random(targets.shape)
    return (0.6 * noise + 0.4 * targets).astype(np.float32)


def write_predictions(test_targets: list[str]) -> None:
    """What train and tta would leave behind, the rows of each file in another order than those of folds.csv."""
    index = read_index("one")
    test_ids = index.loc[index["split"] == "test", "id"].to_numpy(dtype=np.str_)
    for number, model in enumerate(load().models):
        for fold, held_out in read_folds().groupby("fold"):
            shuffled = held_out.sample(frac=1, random_state=0)
            Predictions(
                held_out_ids=shuffled["id"].to_numpy(dtype=np.str_),
                held_out=informed(target_matrix(shuffled["target"]), seed=number),
                test_ids=test_ids,
                test=informed(target_matrix(test_targets), seed=10 + number),
            ).save(paths.predictions(model, int(str(fold))))
            path = paths.history(model, int(str(fold)))
            path.parent.mkdir(parents=True, exist_ok=True)
            pd.DataFrame(CURVE).to_csv(path, index=False)


@pytest.fixture
def test_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A project folder to work in, of two sources up to the end of tta; the truth of its test set, in its order."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(COMMITTED.replace("sources: [sample]", "sources: [one, two]"))
    targets = write_index("one", TRAIN, TEST, seed=0)
    write_index("two", 30, 5, seed=1)
    folds.main()
    write_predictions(targets[TRAIN:])
    return targets[TRAIN:]


def run_the_rest() -> dict[str, Any]:
    for stage in (ensemble, score, submit):
        stage.main()
    metrics: dict[str, Any] = json.loads(paths.METRICS.read_text())
    return metrics


def write_truth(ids: list[str], targets: list[str]) -> None:
    paths.source("one").mkdir(parents=True, exist_ok=True)
    pd.DataFrame({"Id": ids, "Target": targets}).to_csv(paths.source("one") / "test_truth.csv", index=False)


@pytest.mark.usefixtures("test_targets")
def test_folds_hold_the_training_samples_of_all_sources() -> None:
    table = read_folds()
    for source, train in (("one", TRAIN), ("two", 30)):
        index = read_index(source)
        ours = table[table["source"] == source]
        assert ours["id"].tolist() == index["id"][:train].tolist()
        assert ours["row"].tolist() == list(range(train))
        assert ours["target"].tolist() == index["target"][:train].tolist()
    unknown = ~table["group"].str.startswith("HPA")
    assert unknown.sum() == (TRAIN - TRAIN // 2) + 15
    assert (table["group"] == table["id"])[unknown].all()
    assert (table.groupby("group")["fold"].nunique() == 1).all()
    audit = json.loads(paths.FOLDS_AUDIT.read_text())
    assert audit["held_out_share_with_group_in_training"] == 0
    assert audit["held_out_share_with_duplicate_in_training"] == 0
    assert sum(audit["labels"]["Nucleoplasm"]["positives"]) == target_matrix(table["target"])[:, 0].sum()


@pytest.mark.usefixtures("test_targets")
def test_scarce_labels_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    folds.main()
    printed = capsys.readouterr().out
    assert "no training sample has 22 of the 28 labels" in printed
    assert "too few groups for 3 folds" not in printed
    index = pd.read_csv(paths.packed("two") / "index.csv", dtype=str, keep_default_na=False)
    index.loc[:1, "target"] = "27"
    index.to_csv(paths.packed("two") / "index.csv", index=False)
    folds.main()
    printed = capsys.readouterr().out
    assert "no training sample has 21 of the 28 labels" in printed
    assert "too few groups for 3 folds, so that some fold's F1 is 0: Rods & rings (1)\n" in printed


@pytest.mark.usefixtures("test_targets")
def test_an_id_in_two_sources_is_refused() -> None:
    index = pd.read_csv(paths.packed("two") / "index.csv", dtype=str, keep_default_na=False)
    index.loc[0, "id"] = read_index("one")["id"].iloc[0]
    index.to_csv(paths.packed("two") / "index.csv", index=False)
    with pytest.raises(InputError, match=r"data\.sources: 1 ids .* more than one source, such as one-000:"):
        folds.main()


@pytest.mark.usefixtures("test_targets")
def test_held_out_probabilities_are_averaged_over_models_and_test_ones_over_folds_too() -> None:
    ensemble.main()
    held_out, test = blend.load(blend.HELD_OUT), blend.load(blend.TEST)
    table = read_folds()
    assert held_out.ids.tolist() == table["id"].tolist()
    models, ids = load().models, load().folds.ids
    for row in (0, 50, 119):
        fold = int(table["fold"].iloc[row])
        members = [predictions.load(paths.predictions(model, fold)) for model in models]
        expected = np.mean([m.held_out[m.held_out_ids == held_out.ids[row]][0] for m in members], axis=0)
        np.testing.assert_allclose(held_out.probabilities[row], expected, rtol=1e-6)
    everyone = [predictions.load(paths.predictions(model, fold)).test for model in models for fold in ids]
    np.testing.assert_allclose(test.probabilities, np.mean(everyone, axis=0), rtol=1e-6)


@pytest.mark.usefixtures("test_targets")
def test_decisions_are_those_of_the_thresholds_written() -> None:
    ensemble.main()
    written = blend.read_decisions()
    held_out, test = blend.load(blend.HELD_OUT), blend.load(blend.TEST)
    np.testing.assert_array_equal(test.decisions, decide(test.probabilities, np.array(written["thresholds"])))
    fold = read_folds()["fold"].to_numpy()
    for number, thresholds in written["thresholds_by_fold"].items():
        rows = fold == int(number)
        np.testing.assert_array_equal(
            held_out.decisions[rows], decide(held_out.probabilities[rows], np.array(thresholds))
        )
    assert set(written["policies"]) == set(POLICIES)
    assert written["policy"] == load().ensemble.thresholds
    truth = target_matrix(read_folds()["target"])
    assert written["policies"][written["policy"]]["macro_f1"] == pytest.approx(
        sklearn_macro_f1(truth, held_out.decisions)
    )
    assert set(written["models"]) == set(load().models)


@pytest.mark.usefixtures("test_targets")
def test_metrics_are_scikit_learns() -> None:
    metrics = run_the_rest()
    held_out = blend.load(blend.HELD_OUT)
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
        "calibration.csv",
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


def test_the_test_set_is_scored_where_its_truth_is_known_in_whatever_order(test_targets: list[str]) -> None:
    ids = blend_ids()
    write_truth(ids[::-1], test_targets[::-1])
    metrics = run_the_rest()
    decided = blend.load(blend.TEST)
    assert metrics["test"]["macro_f1"] == pytest.approx(
        sklearn_macro_f1(target_matrix(test_targets), decided.decisions)
    )
    assert metrics["test"]["samples"] == TEST
    labels = pd.read_csv(paths.TABLES / "test_labels.csv")
    assert labels["f1"].mean() == pytest.approx(metrics["test"]["macro_f1"])


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


@pytest.mark.usefixtures("test_targets")
def test_the_submission_keeps_the_order_of_the_index_and_leaves_no_row_empty() -> None:
    ensemble.main()
    submit.main()
    submission = pd.read_csv(paths.SUBMISSION, dtype=str, keep_default_na=False)
    assert list(submission.columns) == ["Id", "Predicted"]
    index = read_index("one")
    expected = index.loc[index["split"] == "test", "id"].tolist()
    assert submission["Id"].tolist() == expected != sorted(expected)
    np.testing.assert_array_equal(target_matrix(submission["Predicted"]), blend.load(blend.TEST).decisions)
    for predicted in submission["Predicted"]:
        assert predicted == format_target(parse_target(predicted)), "ascending"


@pytest.mark.usefixtures("test_targets")
def test_a_submission_of_other_samples_is_refused() -> None:
    ensemble.main()
    index = pd.read_csv(paths.packed("one") / "index.csv", dtype=str, keep_default_na=False)
    index.loc[len(index) - 1, "id"] = "new"
    index.to_csv(paths.packed("one") / "index.csv", index=False)
    with pytest.raises(InputError, match=r"blend/test\.npz.*run tta and ensemble again"):
        submit.main()
    assert not paths.SUBMISSION.exists()


@pytest.mark.usefixtures("test_targets")
def test_predictions_of_other_folds_are_refused() -> None:
    model = next(iter(load().models))
    paths.predictions(model, 0).write_bytes(paths.predictions(model, 1).read_bytes())
    with pytest.raises(InputError, match=r"fold-0\.npz: its samples are not those of fold 0"):
        ensemble.main()


@pytest.mark.usefixtures("test_targets")
def test_predictions_of_another_test_set_are_refused() -> None:
    model = next(iter(load().models))
    found = predictions.load(paths.predictions(model, 1))
    dataclasses.replace(found, test_ids=found.test_ids[::-1]).save(paths.predictions(model, 1))
    with pytest.raises(InputError, match=r"fold-1\.npz: its test samples are not those"):
        ensemble.main()


def test_the_summary_names_the_files_and_the_scores(
    test_targets: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    write_truth(blend_ids(), test_targets)
    metrics = run_the_rest()
    capsys.readouterr()
    summary.main()
    printed = capsys.readouterr().out
    for expected in (
        "submission.csv",
        "metrics.json",
        f"{metrics['macro_f1']:.3f}, 95% interval {metrics['macro_f1_low']:.3f} to {metrics['macro_f1_high']:.3f}",
        "120 held-out samples",
        *(f"{fold:.3f}" for fold in metrics["folds"].values()),
        f"{metrics['test']['macro_f1']:.3f}",
        f"{metrics['macro_f1_present']:.3f} over the 6 labels",
    ):
        assert expected in printed


def test_a_summary_before_the_run_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"metrics\.json is missing"):
        summary.main()


def blend_ids() -> list[str]:
    index = read_index("one")
    return index.loc[index["split"] == "test", "id"].tolist()


def sklearn_macro_f1(truth: npt.NDArray[np.bool_], decisions: npt.NDArray[np.bool_]) -> float:
    return float(f1_score(truth, decisions, average="macro", zero_division=0))
