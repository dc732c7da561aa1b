"""A training step: learning rate, gradient accumulation, compilation, float16, moving average."""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.core import params
from pipeline.models.network import Network
from pipeline.training.step import ExponentialMovingAverage, Learner, learning_rate
from tests.fixtures.models import TINY
from tests.training.test_loop import two_patterns

QUERIES = TINY.model_copy(update={"head": "label_queries", "pyramid": 16})


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

    def compile_(network: nn.Module, *, fullgraph: bool) -> nn.Module:
        assert fullgraph
        seen.append(network)
        return network

    monkeypatch.setattr(torch, "compile", compile_)
    network = Network(TINY)
    learner = Learner(network, torch.full((28,), 0.1), TINY.model_copy(update={"compile": compiled}), 1)
    assert seen == [network] * compiled
    assert set(learner.state_dict()["network"]) == set(network.state_dict())


@pytest.mark.parametrize("model", [TINY, QUERIES], ids=lambda model: model.head)
@pytest.mark.parametrize("attention", ["none", "channel", "spatial", "cbam", "nonlocal", "self"])
def test_a_network_is_compiled_without_a_break(model: params.NetworkModel, attention: str) -> None:
    torch.manual_seed(0)
    torch.compiler.reset()
    still = {"attention": attention, "dropout": 0.0, "augment": TINY.augment.model_copy(update={"gain": 1})}
    network = Network(model.model_copy(update=still)).train()
    images = two_patterns(4).batch([(0, position, 0) for position in range(4)])[0]
    expected = network(images)
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")  # the code generator would take minutes
    torch.testing.assert_close(compiled(images), expected, rtol=1e-4, atol=1e-4)


class Synchronising(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Names the operations in its block for which a GPU would be waited for."""

    waiting = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal", "lift_fresh", "index")

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.split(".")[0]
        if name in self.waiting:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


EVERY_LOSS = {"focal": 1.0, "bce": 1.0, "asymmetric": 1.0, "soft_f1": 1.0, "lovasz": 1.0}
STEPPED = [
    model.model_copy(update={"loss": EVERY_LOSS, "label_balance": 0.5, "accumulate": 2, "label_smoothing": 0.1})
    for model in (TINY, QUERIES, TINY.model_copy(update={"attention": "nonlocal"}))
]


def stepping(model: params.NetworkModel) -> Callable[[int], torch.Tensor]:
    """A function that takes a step, after two that allocate what is allocated once."""
    samples = two_patterns(16)
    learner = Learner(Network(model), samples.targets.mean(dim=0), model, 9)
    batches = [samples.batch([(0, int(i), 0) for i in part]) for part in np.split(np.arange(16), 2)]
    if torch.cuda.is_available():
        batches = [(images.pin_memory(), targets.pin_memory()) for images, targets in batches]
    step = partial(learner.train_step, batches)
    for number in range(2):
        step(number)
    return step


@pytest.mark.parametrize("model", STEPPED, ids=lambda model: f"{model.head}-{model.attention}")
def test_no_operation_of_a_step_waits_for_the_device(model: params.NetworkModel) -> None:
    step = stepping(model)
    with Synchronising() as found:
        loss = step(2)
    assert found.seen == []
    with Synchronising() as found:
        loss.item()
        torch.tensor([1.0, 2.0])
        torch.ones(3).nonzero()
    assert found.seen == ["_local_scalar_dense", "lift_fresh", "nonzero"]  # it would have been seen


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("model", STEPPED, ids=lambda model: f"{model.head}-{model.attention}")
def test_no_step_waits_for_the_gpu(model: params.NetworkModel) -> None:
    step = stepping(model.model_copy(update={"precision": "auto"}))
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(2)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_float16_steps_are_scaled_skipped_where_they_overflow_and_resumed() -> None:
    model = TINY.model_copy(update={"precision": "fp16"})
    samples = two_patterns(8)
    batch = samples.batch([(0, i, 0) for i in range(8)])
    learners = []
    for _ in range(2):
        torch.manual_seed(0)
        learners.append(Learner(Network(model), samples.targets.mean(dim=0), model, 20))
    first, resumed = learners
    losses = [first.train_step([batch], step).item() for step in range(10)]
    assert losses[-1] < losses[0]
    assert first.state_dict()["scaler"]["scale"] > 1

    resumed.load_state_dict(deepcopy(first.state_dict()))
    for step in (10, 11):
        assert torch.equal(first.train_step([batch], step), resumed.train_step([batch], step))
    for old, new in zip(first.network.parameters(), resumed.network.parameters(), strict=True):
        assert torch.equal(old, new)

    state = deepcopy(first.state_dict())
    state["scaler"]["scale"] = 1e30  # no gradient in float16 is finite with it
    first.load_state_dict(state)
    before = [weight.clone() for weight in first.network.parameters()]
    assert np.isfinite(first.train_step([batch], 12).item())
    assert all(torch.equal(old, new) for old, new in zip(before, first.network.parameters(), strict=True))
    assert first.state_dict()["scaler"]["scale"] < 1e30


def test_other_types_are_not_scaled() -> None:
    learner = Learner(Network(TINY), torch.full((28,), 0.1), TINY, 1)
    assert learner.state_dict()["scaler"] == {}


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
