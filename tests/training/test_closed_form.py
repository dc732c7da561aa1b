"""Closed-form heads: they tell patterns apart, are the same each time, and refuse what they cannot fit."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from pipeline.core import params
from pipeline.core.errors import InputError
from pipeline.data.augment import Augmentation
from pipeline.inference.probabilities import probabilities
from pipeline.models.network import Network
from pipeline.training import closed_form as module
from pipeline.training.closed_form import fit_closed_form
from pipeline.training.history import Epoch
from tests.fixtures.models import FROZEN
from tests.training.test_loop import MACHINE, two_patterns


def run(
    model: params.FrozenModel = FROZEN, *, augmented: bool = True, **machine: Any
) -> tuple[Network, list[Epoch], npt.NDArray[np.float32]]:
    training, held_out = two_patterns(32), two_patterns(16)
    training.augmentation = Augmentation(model.augment, 32) if augmented else None
    torch.manual_seed(model.seed)
    epochs, held = list[Epoch](), list[npt.NDArray[np.float32]]()

    def on_epoch(epoch: Epoch, predicted: npt.NDArray[np.float32]) -> float:
        epochs.append(epoch)
        held.append(predicted)
        return 0.0

    network = Network(model)
    torch.seed()  # the fit may not depend on the state of torch's generator
    fit_closed_form(network, training, held_out, model, MACHINE.model_copy(update=machine), on_epoch)
    batch, _ = held_out.batch([(0, position, 0) for position in range(16)])
    again = probabilities(network, [(batch, held_out.targets)], precision="fp32")
    np.testing.assert_allclose(held[0], again, atol=1e-5)
    return network, epochs, held[0]


def test_random_features_tell_two_patterns_and_the_backbone_stays() -> None:
    network, epochs, predicted = run()
    assert (predicted[::2, 3] > 0.7).all()
    assert (predicted[1::2, 3] < 0.3).all()
    assert (predicted[1::2, 5] > 0.7).all()
    assert predicted[:, 0].max() < 0.1
    torch.manual_seed(FROZEN.seed)
    fresh = Network(FROZEN).backbone.state_dict()
    assert all(torch.equal(weight, fresh[name]) for name, weight in network.backbone.state_dict().items())
    assert [epoch.epoch for epoch in epochs] == [0]
    assert 0 < epochs[0].train_loss < 0.1


def test_each_copy_of_a_sample_is_augmented_differently() -> None:
    network, _, _ = run()
    assert network.kernel is not None
    points = network.kernel.points
    assert len(points) == FROZEN.copies * 32
    assert torch.cdist(points, points).fill_diagonal_(1).min() > 1e-3


@pytest.mark.parametrize("gain", [1, 1.5])
def test_the_network_varies_the_gain_of_each_copy(gain: float) -> None:
    model = FROZEN.model_copy(update={"copies": 2, "augment": FROZEN.augment.model_copy(update={"gain": gain})})
    network, _, _ = run(model, augmented=False)
    again, _, _ = run(model, augmented=False)
    assert network.kernel is not None
    assert again.kernel is not None
    assert torch.equal(network.kernel.points, again.kernel.points)
    assert not network.normalise.training
    first, second = network.kernel.points.chunk(2)
    differences = (first - second).norm(dim=1)
    assert differences.min() > 1e-3 if gain > 1 else differences.max() == 0


def test_neither_workers_nor_the_size_of_predicted_batches_make_a_difference() -> None:
    network, _, predicted = run()
    other, _, otherwise = run(workers=2, predict_batch=5)
    assert network.kernel is not None
    assert other.kernel is not None
    assert torch.equal(network.kernel.weight, other.kernel.weight)
    np.testing.assert_allclose(predicted, otherwise, atol=1e-6)


def test_more_samples_than_can_be_fitted_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST", 95)
    with pytest.raises(InputError, match=r"32 x 3, at most 95: lower copies"):
        run()
    monkeypatch.setattr(module, "LARGEST", 96)
    run()


def test_features_that_are_not_finite_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Network, "head_features", lambda _self, images: torch.full((len(images), 48), torch.nan))
    with pytest.raises(InputError, match="the model's features are not finite"):
        run()
