"""From predictions to blended probabilities and decisions."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pipeline.core import paths
from pipeline.core.errors import InputError
from pipeline.core.labels import target_matrix
from pipeline.core.params import load
from pipeline.data.fold_table import read_folds
from pipeline.evaluation import prediction_files, result_files
from pipeline.evaluation.thresholds import POLICIES, decide
from pipeline.stages import ensemble
from tests.fixtures.competition import sklearn_macro_f1


@pytest.mark.usefixtures("finished_run")
def test_a_plain_mean_is_one_over_models_and_for_the_test_set_over_folds_too() -> None:
    text = Path("params.yaml").read_text().replace("blend: weights", "blend: probabilities")
    Path("params.yaml").write_text(text.replace("calibration: temperature", "calibration: none"))
    ensemble.main()
    held_out, test = result_files.load_blend(result_files.HELD_OUT), result_files.load_blend(result_files.TEST)
    table = read_folds()
    assert held_out.ids.tolist() == table["id"].tolist()
    models, ids = load().models, load().folds.ids
    for row in (0, 50, 119):
        fold = int(table["fold"].iloc[row])
        members = [prediction_files.load_predictions(paths.predictions(model, fold)) for model in models]
        expected = np.mean([m.held_out[m.held_out_ids == held_out.ids[row]][0] for m in members], axis=0)
        np.testing.assert_allclose(held_out.probabilities[row], expected, rtol=1e-5)
    everyone = [
        prediction_files.load_predictions(paths.predictions(model, fold)).test for model in models for fold in ids
    ]
    np.testing.assert_allclose(test.probabilities, np.mean(everyone, axis=0), rtol=1e-5)
    for fold in ids:
        of_fold = [prediction_files.load_predictions(paths.predictions(model, fold)).test for model in models]
        alike = result_files.load_blend(result_files.single_fold_test(fold))
        np.testing.assert_allclose(alike.probabilities, np.mean(of_fold, axis=0), rtol=1e-5)
        thresholds = np.array(result_files.read_decisions()["by_fold"][str(fold)]["thresholds"])
        np.testing.assert_array_equal(alike.decisions, decide(alike.probabilities, thresholds))


@pytest.mark.usefixtures("finished_run")
def test_decisions_are_those_of_the_thresholds_written() -> None:
    written = result_files.read_decisions()
    held_out, test = result_files.load_blend(result_files.HELD_OUT), result_files.load_blend(result_files.TEST)
    np.testing.assert_array_equal(test.decisions, decide(test.probabilities, np.array(written["thresholds"])))
    fold = read_folds()["fold"].to_numpy()
    for number, rule in written["by_fold"].items():
        rows = fold == int(number)
        np.testing.assert_array_equal(
            held_out.decisions[rows], decide(held_out.probabilities[rows], np.array(rule["thresholds"]))
        )
    assert set(written["policies"]) == set(POLICIES)
    assert written["policy"] == load().ensemble.thresholds
    truth = target_matrix(read_folds()["target"])
    assert written["policies"][written["policy"]]["macro_f1"] == pytest.approx(
        sklearn_macro_f1(truth, held_out.decisions)
    )
    assert set(written["models"]) == set(load().models)
    assert set(written["weights"]) == set(load().models)
    assert sum(written["weights"].values()) == pytest.approx(1)
    for compared, key in (("policies", "policy"), ("blends", "blend"), ("calibrations", "calibration")):
        assert written[compared][written[key]] == written["policies"][written["policy"]]


@pytest.mark.usefixtures("finished_run")
def test_predictions_of_other_folds_are_refused() -> None:
    model = next(iter(load().models))
    paths.predictions(model, 0).write_bytes(paths.predictions(model, 1).read_bytes())
    with pytest.raises(InputError, match=r"fold-0\.npz: its samples are not those of fold 0"):
        ensemble.main()


@pytest.mark.usefixtures("finished_run")
def test_predictions_of_another_test_set_are_refused() -> None:
    model = next(iter(load().models))
    found = prediction_files.load_predictions(paths.predictions(model, 1))
    dataclasses.replace(found, test_ids=found.test_ids[::-1]).save(paths.predictions(model, 1))
    with pytest.raises(InputError, match=r"fold-1\.npz: its test samples are not those"):
        ensemble.main()


@pytest.mark.usefixtures("finished_run")
def test_a_model_that_knows_nothing_has_no_weight() -> None:
    first, second = load().models
    for fold in load().folds.ids:
        found = prediction_files.load_predictions(paths.predictions(second, fold))
        noise = np.random.default_rng(fold).random(found.held_out.shape).astype(np.float32)
        dataclasses.replace(found, held_out=noise).save(paths.predictions(second, fold))
    ensemble.main()
    written = result_files.read_decisions()
    assert written["weights"] == {first: 1, second: 0}
    assert written["models"][second]["macro_f1"] < written["models"][first]["macro_f1"]
