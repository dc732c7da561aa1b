"""Training: it learns, the same way each time, and stops where the loss is lost."""

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch

from pipeline import params
from pipeline.atlas.batches import Samples
from pipeline.errors import InputError
from pipeline.model.network import Network
from pipeline.training import history
from pipeline.training.average import moving_average
from pipeline.training.fit import Epoch, fit
from pipeline.training.predict import probabilities
from pipeline.training.resume import States, fingerprint
from tests.models import TINY

MACHINE = params.Machine(workers=0, predict_batch=16)


def two_patterns(count: int) -> Samples:
    """Half the images have a bright green corner and label 3, the others a bright red one and label 5."""
    array = np.random.default_rng(0).integers(0, 30, (count, 32, 32, 4), dtype=np.uint8)
    array[::2, :12, :12, 0] += 150
    array[1::2, :12, :12, 2] += 150
    table = pd.DataFrame({"source": "s", "row": range(count), "target": ["3", "5"] * (count // 2)})
    return Samples(table, {"s": array}, 32)


def run(
    model: params.Model = TINY, workers: int = 0, states: States | None = None, stop_after: int | None = None
) -> tuple[list[history.Row], npt.NDArray[np.float32]]:
    training, held_out = two_patterns(32), two_patterns(16)
    torch.manual_seed(model.seed)
    network = Network(model)
    prior = training.targets.mean(dim=0)
    network.start_from(prior, torch.zeros(4), torch.ones(4))
    rows: list[history.Row] = []

    def on_epoch(epoch: Epoch, predicted: npt.NDArray[np.float32]) -> str:
        rows.append(history.judge(epoch, predicted, held_out.targets.numpy() > 0, prior.numpy(), model))
        if stop_after == epoch.epoch:
            raise KeyboardInterrupt
        return history.line(rows[-1], model.epochs)

    machine = MACHINE.model_copy(update={"workers": workers})
    with tempfile.TemporaryDirectory() as folder:
        trained = fit(
            network, training, held_out, model, machine, on_epoch, states or States(Path(folder) / "cell", "run")
        )
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
    assert "epoch   6/6" in capsys.readouterr().err
    assert "images_per_second" not in history.table(rows).columns


def test_runs_are_identical_with_any_number_of_workers() -> None:
    short = TINY.model_copy(update={"epochs": 2, "dropout": 0.5})
    (rows, first), (again, second), (_, with_workers) = run(short), run(short), run(short, workers=2)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, with_workers)
    assert history.table(rows).equals(history.table(again))


def test_looking_less_often_at_the_held_out_fold_changes_no_weight() -> None:
    every, seldom = run(TINY), run(TINY.model_copy(update={"evaluate_every": 4}))
    np.testing.assert_array_equal(every[1], seldom[1])
    assert [row.epoch for row in seldom[0]] == [3, 5]
    assert seldom[0][-1] == dataclasses.replace(every[0][-1], images_per_second=seldom[0][-1].images_per_second)


@pytest.mark.parametrize("damaged", [False, True])
def test_an_interrupted_run_goes_on_to_the_same_bytes(tmp_path: Path, damaged: bool) -> None:
    model = TINY.model_copy(update={"dropout": 0.5})
    whole, states = run(model), States(tmp_path / "cell", "run")
    with pytest.raises(KeyboardInterrupt):
        run(model, states=states, stop_after=3)
    saved = sorted(states.folder.iterdir())
    assert [path.name[:11] for path in saved] == ["epoch-00001", "epoch-00002"]
    if damaged:
        saved[-1].write_bytes(saved[-1].read_bytes()[:-100])
    state = states.newest()
    assert state is not None
    assert state["epochs"] == (2 if damaged else 3)
    resumed = run(model, states=states)
    np.testing.assert_array_equal(whole[1], resumed[1])
    assert history.table(whole[0]).equals(history.table(resumed[0]))
    states.remove()
    assert not states.cell.exists()


def test_states_of_another_run_are_not_found_and_make_room(tmp_path: Path) -> None:
    States(tmp_path / "cell", "one").save(0, {"epochs": 1})
    other = States(tmp_path / "cell", "two")
    assert other.newest() is None
    assert list(other.cell.iterdir()) == []


def test_a_run_is_named_by_its_parameters_and_the_content_of_its_files(tmp_path: Path) -> None:
    file = tmp_path / "folds.csv"
    file.write_text("a")
    name = fingerprint("batch_size 8", [file])
    assert name == fingerprint("batch_size 8", [file])
    assert name != fingerprint("batch_size 9", [file])
    file.write_text("b")
    assert name != fingerprint("batch_size 8", [file])


def test_a_lost_loss_stops_and_names_the_step() -> None:
    with pytest.raises(InputError, match=r"the loss is (nan|inf) at step \d+ \(epoch \d\): lower"):
        run(TINY.model_copy(update={"learning_rate": 1e30, "clip_norm": 1e30}))


def test_the_average_of_weights_follows_its_definition() -> None:
    network = Network(TINY)
    average = moving_average(network, 0.9)
    weight = next(iter(network.parameters()))
    expected = None
    for step in range(4):
        with torch.no_grad():
            weight.fill_(float(step))
        average.update_parameters(network)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = float(step) if expected is None else decay * expected + (1 - decay) * step
    assert next(iter(average.module.parameters())).flatten()[0].item() == pytest.approx(expected)


def test_views_are_averaged_as_probabilities() -> None:
    network = Network(TINY).eval()
    batch, _ = two_patterns(4).batch([(0, 0, 0)])
    flipped = network(batch.flip(-1)).sigmoid()
    expected = ((network(batch).sigmoid() + flipped) / 2).detach().numpy()
    got = probabilities(network, [(batch, batch)], views=["identity", "flip"], precision="fp32")
    np.testing.assert_allclose(got, expected, rtol=1e-5)
