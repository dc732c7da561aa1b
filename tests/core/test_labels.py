"""Targets are read and written without loss, and wrong ones are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import InputError
from pipeline.core.labels import format_target, parse_target, target_matrix


@given(st.sets(st.integers(0, 27), min_size=1))
def test_targets_survive_writing_and_reading(ids: set[int]) -> None:
    assert set(parse_target(format_target(ids))) == ids
    assert set(np.flatnonzero(target_matrix([format_target(ids)])[0])) == ids


@pytest.mark.parametrize("text", ["", "  ", "28", "-1", "1.0", "0 0", "x", "²"])
def test_a_wrong_target_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_target(text)
