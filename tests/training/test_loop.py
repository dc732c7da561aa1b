"""Training: it learns, the same way each time, and stops where the loss is lost."""

import importlib.metadata
import os
import re
import signal
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from torch import nn

from pipeline.core import params
from pipeline.core.errors import InputError, Stopped
from pipeline.core.progress import say
from pipeline.data.loader import Image, RandomChange, Samples
from pipeline.inference.probabilities import probabilities
from pipeline.models.network import Network
from pipeline.training import history
from pipeline.training import loop as run_module
from pipeline.training.history import Epoch
from pipeline.training.loop import fit
from pipeline.training.saved_states import PACKAGES, SavedStates, fingerprint
from pipeline.training.step import ExponentialMovingAverage, Learner
from tests.fixtures.models import TINY

MACHINE = params.Machine(workers=0, predict_batch=16, devices="auto", save_minutes=60, tensorboard=False)
DROPPING = TINY.model_copy(update={"dropout": 0.5, "epochs": 4})


def two_patterns(count: int) -> Samples:
    """Half the images have a bright green corner and label 3, the others a bright red one and label 5."""
    array = np.random.default_rng(0).integers(0, 30, (count, 32, 32, 4), dtype=np.uint8)
    array[::2, :12, :12, 0] += 150
    array[1::2, :12, :12, 2] += 150
    table = pd.DataFrame({"source": "s", "row": range(count), "target": ["3", "5"] * (count // 2)})
    return Samples(table, {"s": array}, 32)


def run(
    model: params.Model = TINY,
    states: SavedStates | None = None,
    stop_after: int | None = None,
    change: RandomChange | None = None,
    **machine: float,
) -> tuple[list[history.EpochScores], npt.NDArray[np.float32]]:
    training, held_out = two_patterns(32), two_patterns(16)
    training.augmentation = held_out.augmentation = change
    torch.manual_seed(model.seed)
    network = Network(model)
    prior = training.targets.mean(dim=0)
    network.initialise(prior, torch.zeros(4), torch.ones(4))
    rows: list[history.EpochScores] = []

    def on_epoch(epoch: Epoch, predicted: npt.NDArray[np.float32]) -> float:
        rows.append(history.score_epoch(epoch, predicted, held_out.targets.numpy() > 0, prior.numpy(), model))
        if stop_after == epoch.epoch:
            raise KeyboardInterrupt
        say(history.log_line(rows[-1], model.epochs))
        return rows[-1].held_out_loss

    with tempfile.TemporaryDirectory() as folder:
        states = states or SavedStates(Path(folder) / "cell", "run")
        trained = fit(network, training, held_out, model, MACHINE.model_copy(update=machine), on_epoch, states)
    batch, _ = held_out.batch([(0, position, 0) for position in range(16)])
    return rows, probabilities(trained, [(batch, held_out.targets)], precision="fp32")


def test_it_learns_two_patterns(capsys: pytest.CaptureFixture[str]) -> None:
    rows, predicted = run()
    assert len(rows) == TINY.epochs
    assert rows[-1].train_loss < rows[0].train_loss / 2
    assert (predicted[::2, 3] > predicted[::2, 5]).all()
    assert (predicted[1::2, 5] > predicted[1::2, 3]).all()
    assert rows[-1].held_out_mean_average_precision == pytest.approx(1)
    assert rows[-1].held_out_macro_f1 == pytest.approx(2 / 28)  # the other 26 labels are absent and count 0
    said = capsys.readouterr().err
    assert re.search(r"epoch   6/6  loss .* rate \S+e-\d+  \d+ images/s  waited \d+%  \d+\.\d GB", said)
    assert all(0 < row.data_wait < 1 and row.memory_gb > 0.1 for row in rows)
    assert not {"images_per_second", "data_wait", "memory_gb"} & set(history.table(rows).columns)


# More than the cores of a small machine.
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_runs_are_identical_with_any_number_of_workers() -> None:
    short = TINY.model_copy(update={"epochs": 2, "dropout": 0.5})
    (rows, first), (again, second) = run(short), run(short)
    np.testing.assert_array_equal(first, second)
    for workers in (2, 4):
        np.testing.assert_array_equal(first, run(short, workers=workers)[1])
    assert history.table(rows).equals(history.table(again))


def test_looking_less_often_at_the_held_out_fold_changes_no_weight() -> None:
    every, seldom = run(TINY), run(TINY.model_copy(update={"evaluate_every": 4}))
    np.testing.assert_array_equal(every[1], seldom[1])
    assert [row.epoch for row in seldom[0]] == [3, 5]
    assert history.table(seldom[0]).equals(history.table([every[0][3], every[0][5]]))


@pytest.mark.parametrize("damaged", [False, True])
def test_an_interrupted_run_goes_on_to_the_same_bytes(tmp_path: Path, damaged: bool) -> None:
    whole, states = run(DROPPING), SavedStates(tmp_path / "cell", "run")
    with pytest.raises(KeyboardInterrupt):
        run(DROPPING, states=states, stop_after=3)
    saved = sorted(states.folder.iterdir())
    assert [path.name[:24] for path in saved] == ["epoch-00002-step-0000000", "epoch-00003-step-0000000"]
    if damaged:
        saved[-1].write_bytes(saved[-1].read_bytes()[:-100])
    state = states.newest()
    assert state is not None
    assert state["epoch"] == (2 if damaged else 3)
    resumed = run(DROPPING, states=states)
    np.testing.assert_array_equal(whole[1], resumed[1])
    assert history.table(whole[0]).equals(history.table(resumed[0]))
    states.remove()
    assert not states.cell.exists()


class SignalAtDraw:
    """An augmentation that changes nothing, and sends this process a signal when it has seen some images."""

    side = 32

    def __init__(self, by: signal.Signals, draws: int) -> None:
        self.by, self.left = by, draws

    def __call__(self, image: Image, seed: int, into: Image) -> Image:  # noqa: ARG002 - every change has one
        into[:] = image
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.by)
        return into


@pytest.mark.parametrize(
    ("by", "draws", "saved"),
    # An epoch loads four batches of 8 images to learn from, and 16 held-out ones; the signal comes while one is loaded.
    [(signal.SIGTERM, 48 + 8 + 1, (1, 2)), (signal.SIGINT, 1, (0, 1)), (signal.SIGINT, 48 + 32 + 1, (1, 4))],
)
def test_a_signal_saves_after_the_step_and_the_run_goes_on_to_the_same_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], by: signal.Signals, draws: int, saved: tuple[int, int]
) -> None:
    whole, states = run(DROPPING), SavedStates(tmp_path / "cell", "run")
    with pytest.raises(Stopped) as stopped:
        run(DROPPING, states=states, augmentation=SignalAtDraw(by, draws))
    assert stopped.value.by == by
    assert f"{saved[0]} epochs and {saved[1]} steps are saved in {states.folder}" in capsys.readouterr().err
    state = states.newest()
    assert state is not None
    assert (state["epoch"], state["step"]) == saved
    loaded = SignalAtDraw(by, 1000)
    resumed = run(DROPPING, states=states, augmentation=loaded)
    assert 1000 - loaded.left == (4 - saved[0]) * 48 - saved[1] * 8 + 16  # none that was learned from; 16 by `run`
    np.testing.assert_array_equal(whole[1], resumed[1])
    assert history.table(whole[0]).equals(history.table(resumed[0]))


def test_a_run_saves_within_an_epoch_as_often_as_asked(tmp_path: Path) -> None:
    saved = []

    class Noted(SavedStates):
        def save(self, epoch: int, step: int, state: dict[str, Any]) -> None:
            saved.append((epoch, step, len(state["losses"])))
            super().save(epoch, step, state)

    run(TINY.model_copy(update={"epochs": 2}), states=Noted(tmp_path / "cell", "run"), save_minutes=0)
    steps = [(epoch, step, step) for epoch in (0, 1) for step in (1, 2, 3, 4)]
    assert saved == sorted([*steps, (1, 0, 0), (2, 0, 0)])


@pytest.mark.parametrize("keep", ["last", "best_loss"])
def test_the_average_kept_is_the_last_or_that_of_the_lowest_held_out_loss(tmp_path: Path, keep: str) -> None:
    model = TINY.model_copy(update={"keep": keep, "epochs": 4})
    training, held_out = two_patterns(32), two_patterns(16)
    losses, judged = [4.0, 2.0, 2.0, 3.0], {}

    def on_epoch(epoch: Epoch, predicted: npt.NDArray[np.float32], *, until: int = 4) -> float:
        judged[epoch.epoch] = predicted
        if epoch.epoch == until:
            raise KeyboardInterrupt
        return losses[epoch.epoch]

    torch.manual_seed(0)
    states = SavedStates(tmp_path / "cell", "run")
    network = Network(model)
    with pytest.raises(KeyboardInterrupt):
        fit(network, training, held_out, model, MACHINE, partial(on_epoch, until=3), states)
    kept = fit(network, training, held_out, model, MACHINE, on_epoch, states)
    batch, _ = held_out.batch([(0, position, 0) for position in range(16)])
    predicted = probabilities(kept, [(batch, held_out.targets)], precision="fp32")
    np.testing.assert_array_equal(predicted, judged[3 if keep == "last" else 1])


def test_accumulated_batches_teach_what_one_large_batch_does() -> None:
    model = TINY.model_copy(update={"dropout": 0.0, "loss": {"focal": 1.0, "bce": 0.1}})
    samples, weights, losses = two_patterns(16), [], []
    for parts in (1, 4):
        torch.manual_seed(0)
        learner = Learner(Network(model), samples.targets.mean(dim=0), model, 3)
        learner.network.eval()  # batch norm by its fixed statistics: those of a batch would differ
        batches = [samples.batch([(0, i, 0) for i in part]) for part in np.split(np.arange(16), parts)]
        losses.append([learner.learn(batches, step).item() for step in range(3)])
        weights.append(torch.cat([weight.detach().flatten() for weight in learner.network.parameters()]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0][2] < losses[0][0]
    # AdamW's first steps are as long as the rate however small the gradient: rounding moves weights that have none.
    assert (weights[0] - weights[1]).abs().median() < 1e-6


def test_a_step_takes_as_many_batches_as_asked_and_never_none(tmp_path: Path) -> None:
    taken = []

    class Noted(SavedStates):
        def save(self, epoch: int, step: int, state: dict[str, Any]) -> None:
            taken.append((epoch, step))
            super().save(epoch, step, state)

    for accumulate in (3, 5):  # of the four batches that an epoch has
        model = TINY.model_copy(update={"epochs": 1, "accumulate": accumulate})
        run(model, states=Noted(tmp_path / f"{accumulate}", "run"), save_minutes=0)
    assert taken == [(0, 1), (1, 0)] * 2


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


def test_states_of_another_run_are_not_found_and_make_room(tmp_path: Path) -> None:
    SavedStates(tmp_path / "cell", "one").save(1, 0, {"epoch": 1})
    other = SavedStates(tmp_path / "cell", "two")
    assert other.newest() is None
    other.remove_others()
    assert list(other.cell.iterdir()) == []


def test_a_run_is_named_by_its_parameters_and_the_content_of_its_files(tmp_path: Path) -> None:
    file = tmp_path / "folds.csv"
    file.write_text("a")
    name = fingerprint("batch_size 8", [file])
    assert name == fingerprint("batch_size 8", [file])
    assert name != fingerprint("batch_size 9", [file])
    file.write_text("b")
    assert name != fingerprint("batch_size 8", [file])


@pytest.mark.parametrize("package", PACKAGES)
def test_a_run_is_named_by_the_versions_of_what_computes_it(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    name, version = fingerprint("", []), importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda asked: "0" if asked == package else version(asked))
    assert name != fingerprint("", [])


def test_a_lost_loss_stops_and_names_the_step_however_late_it_is_seen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    messages = []
    for look_every in (1, 3, 50):
        monkeypatch.setattr(run_module, "LOOK_EVERY", look_every)
        states = SavedStates(tmp_path / "cell", "run")
        with pytest.raises(InputError, match=r"the loss is (nan|inf) at step \d+ \(epoch \d\): lower") as stopped:
            run(TINY.model_copy(update={"learning_rate": 1e30, "clip_norm": 1e30}), states=states)
        messages.append(str(stopped.value))
        assert states.newest() is None  # nothing that is lost is ever saved
    assert len(set(messages)) == 1


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


def test_views_are_averaged_as_probabilities() -> None:
    network = Network(TINY).eval()
    batch, _ = two_patterns(4).batch([(0, 0, 0)])
    flipped = network(batch.flip(-1)).sigmoid()
    expected = ((network(batch).sigmoid() + flipped) / 2).detach().numpy()
    got = probabilities(network, [(batch, batch)], views=["identity", "flip"], precision="fp32")
    np.testing.assert_allclose(got, expected, rtol=1e-5)
