"""Training on labels by position: the loss, what it teaches, and interruptions that change no byte."""

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.core import params
from pipeline.core.errors import InputError, Stopped
from pipeline.data.loader import Batch
from pipeline.models.network import Network
from pipeline.training.dense import DENSE_WEIGHT, DenseLearner, fit_fields
from pipeline.training.history import Epoch
from pipeline.training.saved_states import SavedStates
from pipeline.training.windows import WindowBatch, Windows
from tests.fixtures.models import TINY
from tests.training.test_loop import MACHINE

STEPS, EPOCHS = 4, 3
MODEL = TINY.model_copy(
    update={
        "head": "label_queries",
        "pyramid": 16,
        "epochs": EPOCHS,
        "augment": TINY.augment.model_copy(update={"crop": 0.5, "warp": 0}),
    }
)
PRIOR = torch.full((28,), 0.1)


def fields(count: int, seed: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint32]]:
    """Fields of 64 px with a bright square: green and label 3, or red and label 27."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 30, (count, 64, 64, 4), dtype=np.uint8)
    bits = np.zeros((count, 8, 8), np.uint32)
    for number in range(count):
        top, left = rng.integers(0, 6, 2)
        label, channel = ((3, 0), (27, 2))[number % 2]
        images[number, 8 * top : 8 * top + 24, 8 * left : 8 * left + 24, channel] += 200
        bits[number, top : top + 3, left : left + 3] = 1 << label
    return images, bits


def training(model: params.NetworkModel, kind: type[Windows] = Windows) -> Windows:
    images, bits = fields(STEPS * model.batch_size + 3, seed=0)
    return kind([images[:20], images[20:]], [bits[:20], bits[20:]], model)


def held_out() -> list[Batch]:
    images, _ = fields(16, seed=1)
    return [(torch.from_numpy(part).permute(0, 3, 1, 2), torch.empty(0)) for part in (images[:10], images[10:])]


Run = tuple[dict[str, Tensor], list[dict[str, Any]], list[npt.NDArray[np.float32]]]
"""The weights, the epochs without what was measured, and the predictions at the end of each."""


def run(
    states: SavedStates,
    model: params.NetworkModel = MODEL,
    windows: Windows | None = None,
    unseen: Sequence[Batch] | None = None,
    stop_after: int | None = None,
    dense_weight: float = DENSE_WEIGHT,
    **machine: float,
) -> Run:
    epochs, predictions = [], []

    def on_epoch(epoch: Epoch, predicted: npt.NDArray[np.float32]) -> float:
        if epoch.epoch == stop_after:
            raise KeyboardInterrupt
        epochs.append({name: getattr(epoch, name) for name in ("epoch", "learning_rate", "train_loss")})
        predictions.append(predicted)
        return epoch.train_loss

    torch.manual_seed(model.seed)
    network = Network(model)
    network.initialise(PRIOR, torch.zeros(4), torch.ones(4))
    settings = MACHINE.model_copy(update=machine)
    windows, unseen = windows or training(model), unseen or held_out()
    trained = fit_fields(network, windows, PRIOR, unseen, model, settings, on_epoch, states, dense_weight)
    assert not trained.training
    return trained.state_dict(), epochs, predictions


def assert_same(first: Run, second: Run) -> None:
    assert first[0].keys() == second[0].keys()
    assert all(torch.equal(weight, second[0][name]) for name, weight in first[0].items())
    assert first[1] == second[1]
    np.testing.assert_array_equal(first[2], second[2])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run without interruption."""
    return run(SavedStates(tmp_path_factory.mktemp("whole") / "job", "run"))


def learner(dense_weight: float, **update: Any) -> DenseLearner:
    """A learner whose loss is deterministic."""
    augment = MODEL.augment.model_copy(update={"gain": 1})
    model = MODEL.model_copy(update={"dropout": 0.0, "loss": {"bce": 1.0}, "augment": augment, **update})
    torch.manual_seed(0)
    found = DenseLearner(Network(model), PRIOR, model, STEPS, dense_weight)
    with torch.no_grad():
        for weight in found.network.parameters():  # also those that start as zero
            weight.add_(torch.randn_like(weight) * 0.05)
    found.network.eval()  # batch norm by its fixed statistics
    return found


def random_batch() -> WindowBatch:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 4, 64, 32), dtype=np.uint8)
    bits = rng.integers(0, 2**32, (2, 8, 4)) & rng.integers(0, 2**32, (2, 8, 4)) & rng.integers(0, 2**32, (2, 8, 4))
    bits[0, :4] = 0
    bits[1] &= ~(1 << 27)
    return torch.from_numpy(images), torch.from_numpy(bits)


def labels_at(bits: Tensor) -> Tensor:
    """The 28 labels of one position."""
    return torch.tensor([int(bits) >> label & 1 for label in range(28)]).float()


def present(bits: Tensor) -> Tensor:
    """The labels of the windows of a batch, (B, 28)."""
    return torch.stack([torch.stack([labels_at(each) for each in window.flatten()]).amax(0) for window in bits])


@pytest.mark.parametrize("weight", [10.0, 0.5])
def test_the_loss_is_that_of_the_window_and_that_of_its_positions(weight: float) -> None:
    taught, (images, bits) = learner(weight), random_batch()
    queries = taught.network.queries
    assert queries is not None
    assert 0 < present(bits).mean() < 1
    by_position = []
    with torch.no_grad():
        finest = taught.network.levels(images)[0]
        for sample, row, column in np.ndindex(2, 8, 4):
            alone = queries([finest[sample : sample + 1, :, row : row + 1, column : column + 1]])[0]
            by_position.append(F.binary_cross_entropy_with_logits(alone, labels_at(bits[sample, row, column])))
        of_window = F.binary_cross_entropy_with_logits(taught.network(images), present(bits))
    expected = of_window + weight * torch.stack(by_position).mean()
    torch.testing.assert_close(taught.train_step([(images, bits)], 0), expected)


@pytest.mark.parametrize("head", [{}, {"head": "pooled", "pyramid": None}])
def test_without_weight_the_loss_is_that_of_the_window_with_any_head(head: dict[str, Any]) -> None:
    taught, (images, bits) = learner(0, **head), random_batch()
    with torch.no_grad():
        expected = F.binary_cross_entropy_with_logits(taught.network(images), present(bits))
    torch.testing.assert_close(taught.train_step([(images, bits)], 0), expected)


def test_both_parts_of_the_loss_teach_the_backbone() -> None:
    gradients = []
    for weight in (0.0, 10.0):
        taught = learner(weight)
        taught._backward(random_batch(), 1.0)
        gradients.append({name: weight.grad for name, weight in taught.network.named_parameters()})
    for name in (taught.network.stem, "layer1.0.conv1", "layer2.0.conv1", "layer3.0.conv1"):
        of_window, of_both = (found[f"backbone.{name}.weight"] for found in gradients)
        assert of_window is not None
        assert of_both is not None
        assert of_window.norm() > 0
        assert (of_both - of_window).norm() > 0.1 * of_window.norm()


def test_bits_beyond_the_labels_teach_nothing() -> None:
    images, bits = random_batch()
    losses = [learner(10.0).train_step([(images, each)], 0) for each in (bits & (1 << 28) - 1, bits | 15 << 28)]
    assert torch.equal(*losses)


def test_it_learns_squares_and_where_they_are(tmp_path: Path) -> None:
    model = MODEL.model_copy(update={"epochs": 20, "evaluate_every": 8})
    weights, epochs, predictions = run(SavedStates(tmp_path / "job", "run"), model)
    assert [epoch["epoch"] for epoch in epochs] == [7, 15, 19]
    assert epochs[-1]["train_loss"] < epochs[0]["train_loss"]
    assert (predictions[-1][::2, 3] > predictions[-1][::2, 27]).all()
    assert (predictions[-1][1::2, 27] > predictions[-1][1::2, 3]).all()
    network = Network(model).eval()
    network.load_state_dict(weights)
    assert network.queries is not None
    images, bits = fields(16, seed=1)
    with torch.no_grad():
        logits = network.queries.position_logits(network.levels(torch.from_numpy(images).permute(0, 3, 1, 2)))
    for label, chosen in ((3, slice(0, None, 2)), (27, slice(1, None, 2))):
        inside = torch.from_numpy(bits[chosen] > 0)
        assert logits[chosen, label][inside].mean() > logits[chosen, label][~inside].mean() + 2


def test_the_result_does_not_depend_on_the_number_of_workers(tmp_path: Path, whole: Run) -> None:
    assert_same(whole, run(SavedStates(tmp_path / "job", "run"), workers=2))


@pytest.mark.parametrize("damaged", [False, True])
def test_a_killed_run_goes_on_from_its_last_state_to_the_same_bytes(tmp_path: Path, whole: Run, damaged: bool) -> None:
    states = SavedStates(tmp_path / "job", "run")
    with pytest.raises(KeyboardInterrupt):
        run(states, stop_after=2)
    if damaged:
        newest = max(states.folder.iterdir())
        newest.write_bytes(newest.read_bytes()[:-100])
    state = states.newest()
    assert state is not None
    assert (state["epoch"], state["step"]) == (1 if damaged else 2, 0)
    assert_same(whole, run(states))
    assert_same(whole, run(states))  # the state after the last epoch is all that is needed


class Signalling(Windows):
    """Windows that note the steps they were asked for, and send this process a signal at one of them."""

    signals: dict[int, signal.Signals]
    asked: list[int]

    def __getitem__(self, step: int) -> WindowBatch:
        self.asked.append(step)
        if step in self.signals:
            os.kill(os.getpid(), self.signals[step])
        return super().__getitem__(step)


def signalling(signals: dict[int, signal.Signals]) -> Signalling:
    found = training(MODEL, Signalling)
    assert isinstance(found, Signalling)
    found.signals, found.asked = signals, []
    return found


@pytest.mark.parametrize(
    ("by", "step"),
    [(signal.SIGINT, 0), (signal.SIGTERM, STEPS + 1), (signal.SIGINT, STEPS - 1), (signal.SIGTERM, STEPS * EPOCHS - 1)],
)
def test_a_signal_saves_after_the_step_and_the_run_goes_on_to_the_same_bytes(
    tmp_path: Path, whole: Run, capsys: pytest.CaptureFixture[str], by: signal.Signals, step: int
) -> None:
    states = SavedStates(tmp_path / "job", "run")
    with pytest.raises(Stopped) as stopped:
        run(states, windows=signalling({step: by}))
    assert stopped.value.by == by
    epoch, last = divmod(step, STEPS)
    assert f"{epoch} epochs and {last + 1} steps are saved in {states.folder}" in capsys.readouterr().err
    rest = signalling({})
    assert_same(whole, run(states, windows=rest))
    assert rest.asked == list(range(step + 1, STEPS * EPOCHS))  # none that was learned from
    assert f"resuming after {epoch} of {EPOCHS} epochs and {last + 1} steps" in capsys.readouterr().err


class SignallingBatches(list[Batch]):
    """Batches that send this process a signal while the first one is loaded."""

    def __iter__(self) -> Iterator[Batch]:
        os.kill(os.getpid(), signal.SIGTERM)
        return super().__iter__()


def test_a_signal_during_the_evaluation_is_resumed_before_it(tmp_path: Path, whole: Run) -> None:
    states = SavedStates(tmp_path / "job", "run")
    with pytest.raises(Stopped):
        run(states, unseen=SignallingBatches(held_out()))
    state = states.newest()
    assert state is not None
    assert (state["epoch"], state["step"]) == (0, STEPS)
    assert_same(whole, run(states))


@pytest.mark.parametrize("update", [{"head": "pooled", "pyramid": None}, {"pyramid": None}, {"accumulate": 2}])
def test_a_model_that_has_no_labels_by_position_is_refused(tmp_path: Path, update: dict[str, Any]) -> None:
    states = SavedStates(tmp_path / "job", "run")
    with pytest.raises(InputError, match=r"^model: labels by position need head label_queries, a pyramid, and accum"):
        run(states, MODEL.model_copy(update=update))
    assert not states.job.exists()


def test_a_model_without_label_queries_learns_from_the_labels_of_windows(tmp_path: Path) -> None:
    model = MODEL.model_copy(update={"head": "pooled", "pyramid": None, "epochs": 10})
    _, epochs, predictions = run(SavedStates(tmp_path / "job", "run"), model, dense_weight=0)
    assert epochs[-1]["train_loss"] < epochs[0]["train_loss"] / 2
    assert (predictions[-1][::2, 3] > predictions[-1][::2, 27]).mean() > 0.8


def test_a_lost_loss_stops_and_names_the_step(tmp_path: Path) -> None:
    states = SavedStates(tmp_path / "job", "run")
    with pytest.raises(InputError, match=r"the loss is (nan|inf) at step \d+ \(epoch \d\): lower"):
        run(states, MODEL.model_copy(update={"learning_rate": 1e30, "clip_norm": 1e30}))
    assert states.newest() is None
