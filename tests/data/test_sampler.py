"""Rare-label sampling: the published factors, the cap, and as many samples in every epoch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.data.sampler import draw, repeat_factors


def test_factors_are_those_of_the_paper() -> None:
    targets = np.zeros((1000, 28), dtype=np.bool_)
    targets[:, 0] = True  # everywhere
    targets[:10, 1] = True  # 1 %: sqrt(0.05 / 0.01)
    targets[0, 2] = True  # 0.1 %: sqrt(0.05 / 0.001)
    factors = repeat_factors(targets, below=0.05, most=100)
    assert factors[0] == pytest.approx(50**0.5)
    np.testing.assert_allclose(factors[1:10], 5**0.5)
    np.testing.assert_array_equal(factors[10:], 1)
    assert repeat_factors(targets, below=0.05, most=4).max() == 4
    np.testing.assert_array_equal(repeat_factors(targets, below=0.05, most=1), 1)


def test_a_sample_without_labels_is_shown_once() -> None:
    np.testing.assert_array_equal(repeat_factors(np.zeros((5, 28), dtype=np.bool_), below=0.5, most=9), 1)


@given(arrays(np.float64, st.integers(1, 60), elements=st.floats(1, 8)), st.integers(0, 2**20 - 1))
def test_every_draw_rounds_each_factor_and_has_the_same_length(factors: np.ndarray, offset: int) -> None:
    drawn = draw(factors, offset / 2**20)
    assert len(drawn) == round(factors.sum())
    assert (np.diff(drawn) >= 0).all()
    scaled = factors * (len(drawn) / factors.sum())
    counts = np.bincount(drawn, minlength=len(factors))
    assert (counts >= np.floor(scaled - 1e-9)).all()
    assert (counts <= np.ceil(scaled + 1e-9)).all()


def test_over_many_offsets_the_mean_count_is_the_factor() -> None:
    factors = np.array([1.0, 2.5, 1.0, 3.5])
    counts = np.mean([np.bincount(draw(factors, offset)) for offset in np.arange(0.005, 1, 0.01)], axis=0)
    np.testing.assert_allclose(counts, factors, atol=0.02)


@pytest.mark.parametrize("offset", [0.0, 0.25, 1 - 2**-20])
def test_without_repeats_every_sample_is_drawn_once(offset: float) -> None:
    np.testing.assert_array_equal(draw(np.ones(31072), offset), np.arange(31072))
