"""A rule read back decides as the one that was fitted."""

import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from pipeline.core import paths
from pipeline.core.errors import InputError
from pipeline.core.labels import LABELS
from pipeline.core.params import Blending, Calibrating
from pipeline.evaluation.decision_rule import fit_rule
from pipeline.evaluation.metrics import Bools, Floats
from pipeline.evaluation.prediction_files import Predictions
from pipeline.evaluation.result_files import DECISIONS
from pipeline.inference.trained_models import stored_rule, uncalibrated_rule
from pipeline.stages.ensemble import describe
from tests.fixtures.models import ENSEMBLE

MODELS = ["first", "second"]
SHORT = {"blend": "logits", "weights": {}, "by_fold": {}, "slope": 1.0, "offsets": [0.0], "thresholds": [0.5]}
FOLDS = {"first": [0, 1], "second": [0, 1]}


def held_out(samples: int = 40) -> tuple[Floats, Bools]:
    """Two models' probabilities and the truth."""
    random = np.random.default_rng(0)
    truth = random.random((samples, len(LABELS))) < 0.2
    noise = random.random((len(MODELS), samples, len(LABELS)))
    return (0.6 * noise + 0.3 * truth).astype(np.float32), truth


def write(run: Path, content: object) -> None:
    (run / DECISIONS).parent.mkdir(exist_ok=True)
    (run / DECISIONS).write_text(json.dumps(content))


def write_predictions(run: Path, members: Floats) -> None:
    """Each model's folds in another order of samples, as a run may leave them."""
    ids = np.array([f"id{row:03}" for row in range(members.shape[1])])
    none = np.zeros((0, len(LABELS)), np.float32)
    for position, (model, probabilities) in enumerate(zip(MODELS, members, strict=True)):
        for fold in (0, 1):
            rows = np.flatnonzero(np.arange(len(ids)) % 2 == fold)[:: 1 - 2 * position]
            found = Predictions(ids[rows], probabilities[rows], np.array([], dtype="U1"), none)
            found.save(run / paths.predictions(model, fold))


@pytest.mark.parametrize("kind", get_args(Blending))
@pytest.mark.parametrize("calibration", get_args(Calibrating))
def test_it_gives_what_the_fitted_rule_gives(tmp_path: Path, kind: Blending, calibration: Calibrating) -> None:
    members, truth = held_out()
    fitted = fit_rule(members, truth, ENSEMBLE.model_copy(update={"blend": kind, "calibration": calibration}))
    write(tmp_path, {"blend": kind, **describe(fitted, MODELS), "by_fold": {"0": {}, "1": {}}})
    write_predictions(tmp_path, members)
    found = stored_rule(tmp_path)
    assert found is not None
    assert found.members == FOLDS
    new = np.random.default_rng(1).random((len(MODELS), 7, len(LABELS)), dtype=np.float32)
    for ours, theirs in zip(found.rule.apply(new), fitted.apply(new), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_no_run_has_no_rule(tmp_path: Path) -> None:
    assert stored_rule(tmp_path) is None


@pytest.mark.parametrize("content", [[], {"blend": "logits"}, SHORT])
def test_a_damaged_file_is_named(tmp_path: Path, content: object) -> None:
    write(tmp_path, content)
    with pytest.raises(InputError, match=r"decisions\.json is damaged"):
        stored_rule(tmp_path)


def test_the_plain_rule_is_the_mean_and_one_threshold() -> None:
    members, _ = held_out()
    _, probabilities, decisions = uncalibrated_rule(2, 0.5).apply(members)
    np.testing.assert_allclose(probabilities, members.mean(axis=0), atol=1e-6)
    assert np.array_equal(decisions, probabilities >= 0.5)
