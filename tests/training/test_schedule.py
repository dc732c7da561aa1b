"""The learning rate: rises to the peak, falls to nothing, and never leaves 0..peak."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.training.step import learning_rate


def test_without_warmup_it_is_torchs_cosine() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.3)
    oracle = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50)
    for step in range(50):
        assert learning_rate(step, steps=50, peak=0.3, warmup=0.0) == pytest.approx(oracle.get_last_lr()[0])
        optimizer.step()
        oracle.step()


@given(st.integers(1, 500), st.floats(0, 1))
def test_rises_then_falls_within_bounds(steps: int, warmup: float) -> None:
    rates = [learning_rate(step, steps=steps, peak=1.0, warmup=warmup) for step in range(steps)]
    assert all(0 < rate <= 1 for rate in rates)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
