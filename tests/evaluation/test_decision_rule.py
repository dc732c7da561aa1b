"""No sample's own truth has a part in its weights, its calibration or its thresholds."""

from functools import partial

import numpy as np
import pytest

from pipeline.core.params import Ensemble
from pipeline.evaluation.blending import BLENDINGS
from pipeline.evaluation.calibration import CALIBRATIONS
from pipeline.evaluation.decision_rule import cross_fit, fit_rule
from pipeline.evaluation.thresholds import POLICIES
from tests.evaluation.test_blending import scored_models
from tests.fixtures.models import ENSEMBLE

CHOICES = [
    ENSEMBLE.model_copy(update={key: value})
    for key, values in (("thresholds", POLICIES), ("blend", BLENDINGS), ("calibration", CALIBRATIONS))
    for value in values
]


@pytest.mark.parametrize("settings", CHOICES, ids=lambda each: f"{each.blend}-{each.calibration}-{each.thresholds}")
def test_a_sample_s_truth_has_no_part_in_its_decision(settings: Ensemble) -> None:
    members, truth = scored_models(3, (1, 2), samples=90)
    folds = np.arange(90) % 3
    fit = partial(fit_rule, settings=settings)
    before = cross_fit(members, truth, folds, fit)
    changed = truth.copy()
    changed[folds == 1] = ~changed[folds == 1]
    after = cross_fit(members, changed, folds, fit)
    for kind in ("uncalibrated", "probabilities", "decisions"):
        np.testing.assert_array_equal(getattr(after, kind)[folds == 1], getattr(before, kind)[folds == 1])
    assert not np.array_equal(after.probabilities[folds == 0], before.probabilities[folds == 0]) or (
        settings.calibration == "none" and settings.blend != "weights"
    )


def test_each_fold_is_decided_by_the_rule_of_the_others() -> None:
    members, truth = scored_models(4, (1, 2), samples=60)
    folds = np.repeat([2, 5], 30)
    fit = cross_fit(members, truth, folds, partial(fit_rule, settings=ENSEMBLE))
    for fold, other in ((2, 5), (5, 2)):
        rule = fit_rule(members[:, folds == other], truth[folds == other], ENSEMBLE)
        uncalibrated, probabilities, decisions = rule.apply(members[:, folds == fold])
        np.testing.assert_array_equal(fit.uncalibrated[folds == fold], uncalibrated)
        np.testing.assert_array_equal(fit.probabilities[folds == fold], probabilities)
        np.testing.assert_array_equal(fit.decisions[folds == fold], decisions)
        np.testing.assert_array_equal(fit.rules[fold].thresholds, rule.thresholds)
