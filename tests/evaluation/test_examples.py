"""The samples shown are the ones that the probabilities single out."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core import paths
from pipeline.core.errors import InputError
from pipeline.evaluation import result_files
from pipeline.evaluation.diagnostics import ERRORS, choose_examples, gravest_errors
from pipeline.evaluation.result_files import AttentionMaps

PROBABILITIES = np.array([[0.9, 0.1], [0.4, 0.3], [0.6, 0.8], [0.2, 0.7]])
TRUTH = np.array([[True, False], [True, True], [True, False], [False, False]])
DECISIONS = PROBABILITIES >= 0.5
GROUPS = np.array(["a", "b", "c", "c"])


def test_the_best_and_the_worst_of_each_label_and_the_gravest_errors() -> None:
    table = choose_examples(PROBABILITIES, DECISIONS, TRUTH, GROUPS)
    assert list(table.itertuples(index=False, name=None)) == [
        (0, 0, "best"),
        (1, 0, "worst"),
        (1, 1, "best"),  # the label's only sample
        (2, 1, "error"),  # a false alarm at .8
        (1, 1, "error"),  # missed at .3, graver than label 0 at .4; sample 3 is of the same group as sample 2
    ]


@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_errors_are_those_of_a_plain_search(seed: int, samples: int) -> None:
    generator = np.random.default_rng(seed)
    probabilities = generator.random((samples, 5)).round(1)
    decisions, truth = generator.random((2, samples, 5)) < 0.5
    groups = generator.integers(0, 8, samples).astype(str)
    wrong = {
        position: max(
            (abs(truth[position, label] - probabilities[position, label]), -label)
            for label in np.flatnonzero(decisions[position] != truth[position]).tolist()
        )
        for position in range(samples)
        if (decisions[position] != truth[position]).any()
    }
    expected: dict[str, tuple[int, int]] = {}
    for position in sorted(wrong, key=lambda position: (-wrong[position][0], position)):
        expected.setdefault(groups[position], (position, -wrong[position][1]))
    assert gravest_errors(probabilities, decisions, truth, groups) == list(expected.values())[:ERRORS]


def test_a_label_without_samples_has_no_examples() -> None:
    table = choose_examples(PROBABILITIES, np.zeros_like(TRUTH), np.zeros_like(TRUTH), GROUPS)
    assert table.empty
    assert list(table.columns) == ["position", "label", "kind"]


def test_maps_come_back_as_they_were_and_unfit_ones_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    drawn = AttentionMaps(
        np.array(["a", "b", "a"]),
        np.array([0, 0, 7]),
        np.array(["Grad-CAM", "CBAM"]),
        np.random.default_rng(0).integers(0, 256, (3, 2, 4, 5), dtype=np.uint8),
    )
    drawn.save("one")
    for name in result_files.MAP_KINDS:
        np.testing.assert_array_equal(getattr(result_files.load_maps("one"), name), getattr(drawn, name))
    AttentionMaps(drawn.ids[:2], drawn.labels, drawn.names, drawn.maps).save("two")
    with pytest.raises(InputError, match=r"two\.npz: 2 ids, but maps of shape \(3, 2, 4, 5\): run the explain stage"):
        result_files.load_maps("two")
    assert paths.maps("one").exists()
