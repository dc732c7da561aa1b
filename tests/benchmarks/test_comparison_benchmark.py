"""A row of the comparison: scores of all seeds together, and the paired difference to no attention."""

import numpy as np
from sklearn.metrics import f1_score

from benchmarks.comparison import row
from pipeline.core import params


def test_scores_are_macro_f1_over_all_seeds_and_nothing_differs_from_itself() -> None:
    random = np.random.default_rng(0)
    truth = np.tile(random.random((40, 28)) < 0.3, (2, 1))
    decisions = truth ^ (random.random(truth.shape) < 0.1)
    groups = np.tile(np.repeat(np.arange(20).astype(str), 2), 2)
    score = params.Score(resamples=50, confidence=0.95, seed=0)
    same = row(("none", "pooled"), decisions, decisions, truth, groups, score)
    assert str(same["macro-F1"]).startswith(f"{f1_score(truth, decisions, average='macro'):.3f} (")
    assert str(same["difference to none"]).startswith("+0.000 (")
    better = row(("cbam", "pooled"), truth, decisions, truth, groups, score)
    gain = 1 - f1_score(truth, decisions, average="macro")
    assert str(better["difference to none"]).startswith(f"+{gain:.3f} (+")
