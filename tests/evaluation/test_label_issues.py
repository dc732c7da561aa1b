"""Label issues: cleanlab's, and the definition on a case worked out by hand."""

import numpy as np
import pytest
from cleanlab.filter import find_label_issues as cleanlab_issues
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.labels import LABELS
from pipeline.evaluation.label_issues import find_label_issues, rank_label_issues


@given(st.integers(0, 2**32 - 1), st.integers(20, 60), st.floats(0.1, 0.9))
@settings(deadline=None, max_examples=30)
def test_they_are_cleanlab_s_off_diagonal_samples(seed: int, samples: int, skill: float) -> None:
    generator = np.random.default_rng(seed)
    labelled = generator.random((samples, 5)) < 0.4
    labelled[:2] = [[True] * 5, [False] * 5]  # cleanlab needs both states of every label
    probabilities = (1 - skill) * generator.random((samples, 5)) + skill * labelled
    flipped = labelled ^ (generator.random((samples, 5)) < 0.15)
    flipped[:2] = labelled[:2]
    found = find_label_issues(probabilities, flipped)
    for label in range(5):
        present = probabilities[:, label]
        expected = cleanlab_issues(
            flipped[:, label].astype(np.int64),
            np.stack([1 - present, present], axis=1),
            filter_by="confident_learning",
            n_jobs=1,
        )
        np.testing.assert_array_equal(found[:, label], expected)


def test_a_label_is_an_issue_if_its_other_state_is_certain() -> None:
    """Given samples have a mean of .5, the others lack the label with a mean of .7."""
    probabilities = np.array([[0.9], [0.55], [0.05], [0.6], [0.1], [0.2]])
    labelled = np.array([[True], [True], [True], [False], [False], [False]])
    assert find_label_issues(probabilities, labelled)[:, 0].tolist() == [False, False, True, True, False, False]
    table = rank_label_issues(probabilities, labelled)
    assert table.to_dict("records") == [
        {"position": 2, "label": 0, "name": LABELS[0], "given": 1, "suggested": 0, "confidence": pytest.approx(0.95)},
        {"position": 3, "label": 0, "name": LABELS[0], "given": 0, "suggested": 1, "confidence": pytest.approx(0.6)},
    ]


def test_a_label_that_nobody_or_everybody_has_is_no_issue() -> None:
    labelled = np.tile([False, True], (4, 1))
    probabilities = np.array([[0.99, 0.01]] * 4, np.float32)
    assert not find_label_issues(probabilities, labelled).any()
    assert rank_label_issues(probabilities, labelled).empty


def test_confident_issues_come_first() -> None:
    generator = np.random.default_rng(0)
    labelled = generator.random((100, 28)) < 0.2
    table = rank_label_issues(generator.random((100, 28)), labelled)
    assert len(table) > 100
    assert table["confidence"].is_monotonic_decreasing
    assert (labelled[table["position"], table["label"]] == table["given"]).all()
