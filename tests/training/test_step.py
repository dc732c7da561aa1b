"""A training step: learning rate, gradient accumulation, moving average."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pipeline.models.network import Network
from pipeline.training.step import ExponentialMovingAverage, Learner, learning_rate
from tests.fixtures.models import TINY
from tests.training.test_loop import two_patterns


def test_without_warmup_the_learning_rate_is_torchs_cosine() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.3)
    oracle = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50)
    for step in range(50):
        assert learning_rate(step, steps=50, peak=0.3, warmup=0.0) == pytest.approx(oracle.get_last_lr()[0])
        optimizer.step()
        oracle.step()


@given(st.integers(1, 500), st.floats(0, 1))
def test_the_learning_rate_rises_then_falls_within_bounds(steps: int, warmup: float) -> None:
    rates = [learning_rate(step, steps=steps, peak=1.0, warmup=warmup) for step in range(steps)]
    assert all(0 < rate <= 1 for rate in rates)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_accumulated_batches_teach_what_one_large_batch_does() -> None:
    model = TINY.model_copy(update={"dropout": 0.0, "loss": {"focal": 1.0, "bce": 0.1}})
    samples, weights, losses = two_patterns(16), [], []
    for parts in (1, 4):
        torch.manual_seed(0)
        learner = Learner(Network(model), samples.targets.mean(dim=0), model, 3)
        learner.network.eval()  # batch norm by its fixed statistics: those of a batch would differ
        batches = [samples.batch([(0, i, 0) for i in part]) for part in np.split(np.arange(16), parts)]
        losses.append([learner.train_step(batches, step).item() for step in range(3)])
        weights.append(torch.cat([weight.detach().flatten() for weight in learner.network.parameters()]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0][2] < losses[0][0]
    # AdamW's first steps are as long as the rate however small the gradient: rounding moves weights that have none.
    assert (weights[0] - weights[1]).abs().median() < 1e-6


@pytest.mark.parametrize("compiled", [False, True])
def test_what_learns_is_compiled_if_asked_for(monkeypatch: pytest.MonkeyPatch, compiled: bool) -> None:
    seen = []

    def compile_(network: nn.Module) -> nn.Module:
        seen.append(network)
        return network

    monkeypatch.setattr(torch, "compile", compile_)
    network = Network(TINY)
    Learner(network, torch.full((28,), 0.1), TINY.model_copy(update={"compile": compiled}), 1)
    assert seen == [network] * compiled


def test_the_average_of_weights_follows_its_definition() -> None:
    network = Network(TINY)
    average = ExponentialMovingAverage(network, 0.15)
    norm = next(module for module in network.modules() if isinstance(module, nn.BatchNorm2d))
    averaged = next(module for module in average.network.modules() if isinstance(module, nn.BatchNorm2d))
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    expected = 0.0
    for step in range(4):
        with torch.no_grad():
            norm.weight.fill_(float(step))
            norm.running_var.fill_(float(step))
            norm.num_batches_tracked.fill_(step)
        average.update(step)
        decay = min(0.15, (1 + step) / (10 + step)) if step else 0
        expected = decay * expected + (1 - decay) * step
    assert averaged.weight[0].item() == pytest.approx(expected)
    assert averaged.running_var is not None
    assert averaged.running_var[0].item() == pytest.approx(expected)
    assert averaged.num_batches_tracked == 3
    assert norm.weight[0].item() == 3
    assert not averaged.training
