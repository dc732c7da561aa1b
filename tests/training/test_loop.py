"""The training loop: it learns, gives the same bytes each time, resumes after any step, and stops at a loss of nan."""

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

from pipeline.core import params
from pipeline.core.errors import InputError, Stopped
from pipeline.core.progress import say
from pipeline.data.loader import Image, RandomChange, Samples
from pipeline.inference.probabilities import probabilities
from pipeline.models.losses import objective
from pipeline.models.network import Network
from pipeline.training import history
from pipeline.training import loop as module
from pipeline.training.history import Epoch
from pipeline.training.loop import fit
from pipeline.training.saved_states import SavedStates
from tests.fixtures.models import TINY

MACHINE = params.Machine(workers=0, predict_batch=16, devices=1, save_minutes=60, tensorboard=False)
DROPPING = TINY.model_copy(update={"dropout": 0.5, "epochs": 4})


def two_patterns(count: int) -> Samples:
    """Half the images have a bright green corner and label 3, the others a bright red one and label 5."""
    array = np.random.default_rng(0).integers(0, 30, (count, 32, 32, 4), dtype=np.uint8)
    array[::2, :12, :12, 0] += 150
    array[1::2, :12, :12, 2] += 150
    table = pd.DataFrame({"source": "s", "row": range(count), "target": ["3", "5"] * (count // 2)})
    return Samples(table, {"s": array}, 32)


def run(
    model: params.NetworkModel = TINY,
    states: SavedStates | None = None,
    stop_after: int | None = None,
    augmentation: RandomChange | None = None,
    **machine: float,
) -> tuple[list[history.EpochScores], npt.NDArray[np.float32]]:
    training, held_out = two_patterns(32), two_patterns(16)
    training.augmentation = held_out.augmentation = augmentation
    torch.manual_seed(model.seed)
    network = Network(model)
    prior = training.targets.mean(dim=0)
    loss = objective(model, prior)
    network.initialise(prior, torch.zeros(4), torch.ones(4))
    rows: list[history.EpochScores] = []

    def on_epoch(epoch: Epoch, predicted: npt.NDArray[np.float32]) -> float:
        rows.append(history.score_epoch(epoch, predicted, held_out.targets.numpy() > 0, prior.numpy(), loss))
        if stop_after == epoch.epoch:
            raise KeyboardInterrupt
        say(history.log_line(rows[-1], model.epochs))
        return rows[-1].held_out_loss

    with tempfile.TemporaryDirectory() as folder:
        states = states or SavedStates(Path(folder) / "job", "run")
        trained = fit(network, training, held_out, model, MACHINE.model_copy(update=machine), on_epoch, states, {})
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
    assert re.search(r"epoch   6/6  loss .* learning rate \S+e-\d+  \d+ images/s  data wait \d+%  \d+\.\d GB", said)
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


def test_evaluating_less_often_changes_no_weight() -> None:
    every, seldom = run(TINY), run(TINY.model_copy(update={"evaluate_every": 4}))
    np.testing.assert_array_equal(every[1], seldom[1])
    assert [row.epoch for row in seldom[0]] == [3, 5]
    assert history.table(seldom[0]).equals(history.table([every[0][3], every[0][5]]))


@pytest.mark.parametrize("damaged", [False, True])
def test_an_interrupted_run_goes_on_to_the_same_bytes(tmp_path: Path, damaged: bool) -> None:
    whole, states = run(DROPPING), SavedStates(tmp_path / "job", "run")
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
    states.remove_job()
    assert not states.job.exists()


@pytest.mark.parametrize(("backbone", "attention"), [("test_efficientnet", "cbam"), ("test_vit", "none")])
def test_other_backbones_learn_and_resume_too(tmp_path: Path, backbone: str, attention: str) -> None:
    model = TINY.model_copy(update={"backbone": backbone, "attention": attention, "epochs": 3})
    whole, states = run(model), SavedStates(tmp_path / "job", "run")
    assert whole[0][-1].train_loss < whole[0][0].train_loss
    with pytest.raises(KeyboardInterrupt):
        run(model, states=states, stop_after=1)
    np.testing.assert_array_equal(whole[1], run(model, states=states)[1])


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
    whole, states = run(DROPPING), SavedStates(tmp_path / "job", "run")
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

    run(TINY.model_copy(update={"epochs": 2}), states=Noted(tmp_path / "job", "run"), save_minutes=0)
    steps = [(epoch, step, step) for epoch in (0, 1) for step in (1, 2, 3, 4)]
    assert saved == sorted([*steps, (1, 0, 0), (2, 0, 0)])


@pytest.mark.parametrize("keep", ["last", "best_loss"])
def test_the_average_kept_is_the_last_or_that_of_the_lowest_held_out_loss(tmp_path: Path, keep: str) -> None:
    model = TINY.model_copy(update={"keep": keep, "epochs": 4})
    training, held_out = two_patterns(32), two_patterns(16)
    losses, seen = [4.0, 2.0, 2.0, 3.0], {}

    def on_epoch(epoch: Epoch, predicted: npt.NDArray[np.float32], *, until: int = 4) -> float:
        seen[epoch.epoch] = predicted
        if epoch.epoch == until:
            raise KeyboardInterrupt
        return losses[epoch.epoch]

    torch.manual_seed(0)
    states = SavedStates(tmp_path / "job", "run")
    network = Network(model)
    with pytest.raises(KeyboardInterrupt):
        fit(network, training, held_out, model, MACHINE, partial(on_epoch, until=3), states, {})
    kept = fit(network, training, held_out, model, MACHINE, on_epoch, states, {})
    batch, _ = held_out.batch([(0, position, 0) for position in range(16)])
    predicted = probabilities(kept, [(batch, held_out.targets)], precision="fp32")
    np.testing.assert_array_equal(predicted, seen[3 if keep == "last" else 1])


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


def test_a_lost_loss_stops_and_names_the_step_however_late_it_is_seen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    messages = []
    for every in (1, 3, 50):
        monkeypatch.setattr(module, "CHECK_LOSSES_EVERY", every)
        states = SavedStates(tmp_path / "job", "run")
        with pytest.raises(InputError, match=r"the loss is (nan|inf) at step \d+ \(epoch \d\): lower") as stopped:
            run(TINY.model_copy(update={"learning_rate": 1e30, "clip_norm": 1e30}), states=states)
        messages.append(str(stopped.value))
        assert states.newest() is None  # nothing that is lost is ever saved
    assert len(set(messages)) == 1
