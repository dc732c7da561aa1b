"""Rare-label sampling: the published factors, the cap, and as many samples in every epoch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.data.sampler import Draws, draw, repeat_factors, source_factors


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


def shown(factors: np.ndarray, epochs: int) -> np.ndarray:
    """How often each sample is drawn, (epochs, N)."""
    draws = Draws(factors, 8, shuffle_seed=3)
    counts = []
    for draws.epoch in range(epochs):
        counts.append(np.bincount([position for batch in draws for _, position, _ in batch], minlength=len(factors)))
    return np.array(counts)


def test_each_source_is_shown_as_often_as_it_says() -> None:
    sources = np.array(["kaggle"] * 40 + ["atlas"] * 100 + ["mine"] * 10)
    factors = source_factors(sources, {"atlas": 0.25, "mine": 2.5})
    np.testing.assert_array_equal(factors, [1.0] * 40 + [0.25] * 100 + [2.5] * 10)
    counts = shown(factors, 400)
    assert (counts.sum(axis=1) == 40 + 25 + 25).all()
    # 400 epochs: the standard error of the mean of a draw of probability 0.25 is 0.022.
    np.testing.assert_allclose(counts.mean(axis=0), factors, atol=0.1)
    assert (counts >= np.floor(factors)).all()
    assert (counts <= np.ceil(factors)).all()
    by_source = [counts[:, sources == source].sum() / counts.sum() for source in ("kaggle", "atlas", "mine")]
    np.testing.assert_allclose(by_source, np.array([40, 25, 25]) / 90, atol=0.005)


def test_samples_of_a_source_that_is_shown_less_are_not_always_drawn_together() -> None:
    counts = shown(np.full(20, 0.5), 60)
    together = counts.T @ counts
    np.fill_diagonal(together, 0)
    assert together.max() < 30, "of the 30 epochs, more or less, that show a sample"


def test_a_factor_of_a_source_and_one_of_a_rare_label_are_multiplied_and_repeats_are_counted() -> None:
    draws = Draws(np.array([3.0, 0.5, 0.5, 1.0]), 5, shuffle_seed=0)
    drawn = [draw for batch in draws for draw in batch]
    assert len(drawn) == 5
    assert sorted(before for _, position, before in drawn if position == 0) == [0, 1, 2]


@pytest.mark.parametrize("most", [1, 4])
def test_where_no_source_is_named_every_batch_is_that_of_the_factors_alone(most: float) -> None:
    """By their definition, written out: weights that were trained before there was ``data.draws`` are still those."""
    targets = np.random.default_rng(0).random((200, 28)) < 0.05
    plain = repeat_factors(targets, below=0.05, most=most)
    factors = plain * source_factors(np.array(["sample"] * 200), {})
    assert factors.tobytes() == plain.tobytes()
    for epoch in range(3):
        draws = Draws(factors, 7, shuffle_seed=11, drop_last=True)
        draws.epoch = epoch
        random = np.random.default_rng((11, epoch))
        count = round(float(plain.sum()))
        offset = random.integers(2**20) / 2**20
        ends = plain.cumsum()
        positions = [
            int(np.searchsorted(ends * (count / ends[-1]), row + offset, side="right").clip(max=199))
            for row in range(count)
        ]
        order = random.permutation(count)
        expected = [
            [(epoch, positions[row], positions[:row].count(positions[row])) for row in order[start : start + 7]]
            for start in range(0, count - count % 7, 7)
        ]
        assert list(draws) == expected
