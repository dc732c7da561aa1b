"""The log of a training: an object an epoch, whole at any time; TensorBoard where it is asked for and installed."""

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from pipeline.core.errors import InputError
from pipeline.training import history
from pipeline.training.history import Epoch, EpochScores, score_epoch


def row(epoch: int) -> EpochScores:
    return EpochScores(
        images_per_second=100.0,
        data_wait=0.1,
        memory_gb=0.5,
        epoch=epoch,
        learning_rate=0.01,
        train_loss=0.3,
        held_out_loss=0.2,
        held_out_macro_f1=0.4,
        held_out_mean_average_precision=0.5,
    )


@pytest.mark.parametrize(
    ("place", "value"), [((1, 4), np.nan), ((slice(None), 27), np.inf), ((slice(None), slice(None)), -np.inf)]
)
def test_predictions_that_are_not_finite_are_named_as_a_loss_that_is_not_is(
    place: tuple[int | slice, int | slice], value: float
) -> None:
    probabilities = np.full((3, 28), 0.5, dtype=np.float32)
    probabilities[place] = value
    ended = Epoch(1.0, 0.0, 1.0, epoch=3, learning_rate=1e4, train_loss=0.3)
    with pytest.raises(
        InputError, match="held-out predictions after epoch 4 are not finite: lower the model's learning"
    ):
        score_epoch(
            ended,
            probabilities,
            np.ones((3, 28), dtype=np.bool_),
            np.full(28, 0.1, np.float32),
            lambda *_: torch.zeros(()),
        )


def test_each_line_is_an_epoch_with_all_that_is_known_of_it(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "a-0.jsonl"
    for rows in ([row(0)], [row(0), row(1)]):
        history.write_log(path, rows)
        assert [EpochScores(**json.loads(line)) for line in path.read_text().splitlines()] == rows


class Writer:
    """TensorBoard's, in a list."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.scalars = folder, list[tuple[str, float, int]]()
        WRITERS.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((name, value, step))

    def flush(self) -> None:
        pass


WRITERS: list[Writer] = []


def test_tensorboard_gets_every_figure_and_nothing_of_a_run_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    (tmp_path / "board").mkdir()
    (tmp_path / "board" / "old").write_text("")
    show = history.tensorboard_writer(tmp_path / "board")
    show(row(1))
    assert not (tmp_path / "board" / "old").exists()
    assert ("held_out_macro_f1", 0.4, 2) in WRITERS[-1].scalars
    assert len(WRITERS[-1].scalars) == 8


def test_a_missing_tensorboard_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match="pip install tensorboard"):
        history.tensorboard_writer(tmp_path)
