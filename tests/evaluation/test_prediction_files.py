"""Files of predictions: the same bytes for the same run, and a damaged one is never read."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core.errors import InputError
from pipeline.evaluation import prediction_files
from pipeline.evaluation.prediction_files import Predictions


def some_predictions(seed: int = 0) -> Predictions:
    generator = np.random.default_rng(seed)
    return Predictions(
        held_out_ids=np.array(["a", "b", "longer"]),
        held_out=generator.random((3, 28), dtype=np.float32),
        test_ids=np.array(["t"]),
        test=generator.random((1, 28), dtype=np.float32),
    )


def test_predictions_come_back_as_they_were_and_as_the_same_bytes(tmp_path: Path) -> None:
    saved = some_predictions()
    saved.save(tmp_path / "one.npz")
    saved.save(tmp_path / "two.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    found = prediction_files.load_predictions(tmp_path / "one.npz")
    for name in ("held_out_ids", "held_out", "test_ids", "test"):
        np.testing.assert_array_equal(getattr(found, name), getattr(saved, name))
        assert getattr(found, name).dtype == getattr(saved, name).dtype


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"held_out": np.zeros((2, 28), np.float32)}, r"ids of shape \(3,\), but probabilities \(2, 28\)"),
        ({"held_out": np.zeros((3, 27), np.float32)}, r"ids of shape \(3,\), but probabilities \(3, 27\)"),
        ({"test": np.full((1, 28), np.nan, np.float32)}, r"a probability is not in 0\.\.1"),
        ({"test": np.full((1, 28), 1.5, np.float32)}, r"a probability is not in 0\.\.1"),
        ({"test": np.zeros((1, 28), np.int64)}, "test has the type int64"),
        ({"held_out_ids": np.array(["a", "b", "a"])}, "an id is repeated"),
        ({"held_out_ids": np.array([1, 2, 3])}, "held_out_ids has the type int64"),
    ],
)
def test_predictions_that_do_not_fit_together_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = tmp_path / "fold-0.npz"
    Predictions(**{**vars(some_predictions()), **changes}).save(path)
    with pytest.raises(InputError, match=rf"fold-0\.npz: {message}.*run the tta stage"):
        prediction_files.load_predictions(path)


@pytest.mark.parametrize("kept", [0, 10, 300, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "fold-0.npz"
    some_predictions().save(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"fold-0\.npz is damaged .*run the tta stage"):
        prediction_files.load_predictions(path)


def test_a_flipped_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "fold-0.npz"
    some_predictions().save(path)
    content = bytearray(path.read_bytes())
    content[content.index(b"held_out.npy") + 300] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        prediction_files.load_predictions(path)


def test_a_missing_file_and_a_file_of_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.npz is missing: run the tta stage"):
        prediction_files.load_predictions(tmp_path / "none.npz")
    np.save(tmp_path / "array.npy", np.zeros(3))
    np.savez(tmp_path / "other.npz", something=np.zeros(3))
    for name in ("array.npy", "other.npz"):
        with pytest.raises(InputError, match=rf"{name} is damaged"):
            prediction_files.load_predictions(tmp_path / name)
