"""Windows of fields: batches depend on the step alone, and images and labels by position stay aligned."""

import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from pipeline.core import params
from pipeline.core.errors import InputError
from pipeline.core.labels import LABELS
from pipeline.training.windows import Windows, labels_of, open_batches
from tests.fixtures.models import TINY

SIDE, CELL, FIELDS = 128, 8, 11
VALUES = np.array([0, 1, 1 << 27, 1 << 31, 1 | 1 << 27, 1 << 5 | 1 << 31, (1 << 28) - 1, (1 << 32) - 1], np.uint32)
"""Bits of a position, of which label 27 is the last and bit 31 belongs to no label."""

PLAIN = {"crop": 0.5, "warp": 0, "gamma": 1, "noise": 0, "drop_stains": 0}


def recipe(**augment: float) -> params.NetworkModel:
    changes = {"augment": TINY.augment.model_copy(update=PLAIN | augment), "batch_size": 4, "epochs": 4}
    return TINY.model_copy(update=changes)


def fields() -> tuple[list[npt.NDArray[np.uint8]], list[npt.NDArray[np.uint32]]]:
    """Eleven fields in two read-only shards; each pixel tells what it shows.

    Green is 0 except for one pixel per position, which is the number of the position's bits in ``VALUES``. Blue and
    yellow are the column and the row, red is the number of the field.
    """
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, len(VALUES), (FIELDS, SIDE // CELL, SIDE // CELL))
    images = np.zeros((FIELDS, SIDE, SIDE, 4), np.uint8)
    images[:, 2::CELL, 5::CELL, 0] = numbers  # a pixel off the axes of its position
    images[..., 1] = np.arange(SIDE)
    images[..., 2] = np.arange(FIELDS)[:, None, None]
    images[..., 3] = np.arange(SIDE)[:, None]
    bits = VALUES[numbers]
    for array in (images, bits):
        array.setflags(write=False)  # as the memory maps are
    return [images[:6], images[6:]], [bits[:6], bits[6:]]


def windows(**augment: float) -> Windows:
    return Windows(*fields(), recipe(**augment))


def equal(first: Any, second: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("first", [0, 3, 8])
def test_a_batch_depends_on_its_step_alone(workers: int, first: int) -> None:
    changing = windows(gamma=1.3, noise=0.05, drop_stains=0.5)
    assert len(changing) == 8
    expected = [changing[step] for step in reversed(range(8))][::-1]
    assert not any(torch.equal(expected[0][0], images) for images, _ in expected[1:])
    before = torch.get_rng_state()
    with open_batches(windows(gamma=1.3, noise=0.05, drop_stains=0.5), first, workers) as batches:
        found = list(batches)
    assert torch.equal(torch.get_rng_state(), before)
    assert len(found) == 8 - first
    assert all(equal(batch, expected[first + number]) for number, batch in enumerate(found))


def test_another_seed_gives_other_windows_in_another_order() -> None:
    other = Windows(*fields(), recipe().model_copy(update={"seed": 1}))
    assert not any(equal(windows()[step], other[step]) for step in range(8))
    assert [shown(other[step][0]) for step in range(2)] != [shown(windows()[step][0]) for step in range(2)]


def shown(images: Tensor) -> list[int]:
    """The fields of a batch."""
    assert (images[:, 2].amax((1, 2)) == images[:, 2].amin((1, 2))).all()
    return images[:, 2, 0, 0].tolist()


def test_a_pass_shows_every_field_once_except_for_an_incomplete_batch() -> None:
    batches = windows()
    assert batches.steps_per_epoch == 2
    passes = [[*shown(batches[2 * epoch][0]), *shown(batches[2 * epoch + 1][0])] for epoch in range(4)]
    assert all(len(set(ids)) == len(ids) == 8 for ids in passes)
    assert len({tuple(ids) for ids in passes}) == 4
    assert {id_ for ids in passes for id_ in ids} == set(range(FIELDS))  # not always the same ones are left out


@pytest.mark.parametrize(("crop", "side"), [(0.25, 32), (0.5, 64), (1, 128)])
def test_images_and_labels_stay_aligned_in_all_places_and_directions(crop: float, side: int) -> None:
    batches, seen, corners = windows(crop=crop), set(), []
    for step in range(80):  # steps beyond the last one are defined too
        images, bits = batches[step]
        assert images.shape == (4, 4, side, side)
        assert images.dtype == torch.uint8
        assert bits.shape == (4, side // CELL, side // CELL)
        assert bits.dtype == torch.int64
        marks = images[:, 0].reshape(4, side // CELL, CELL, side // CELL, CELL)
        np.testing.assert_array_equal(VALUES[marks.amax((2, 4)).numpy()], bits.numpy())
        assert ((marks > 0).sum((2, 4)) == (bits > 0)).all()
        for columns, rows in images[:, [1, 3]].int():
            assert columns.unique().numel() == rows.unique().numel() == side
            corners.append((int(rows.min()), int(columns.min())))
            steps = [end - x[0, 0] for x in (columns, rows) for end in (x[-1, 0], x[0, -1])]
            seen.add(tuple(torch.stack(steps).sign().tolist()))
    assert len(seen) == 8
    assert {place % CELL for corner in corners for place in corner} == {0}
    rows, columns = (set(places) for places in zip(*corners, strict=True))
    assert rows == columns == set(range(0, SIDE - side + 1, CELL))


def test_appearance_changes_images_and_neither_labels_nor_fields() -> None:
    plain, changing = windows(), windows(gamma=1.3, noise=0.05, drop_stains=1)
    before = [array.copy() for array in changing.images]
    for step in range(8):
        (images, bits), (changed, same) = plain[step], changing[step]
        assert torch.equal(bits, same)
        assert not any(torch.equal(a, b) for a, b in zip(images, changed, strict=True))
        assert (changed.amax((2, 3)) == 0).any(dim=1).all()  # an absent stain
    for array, copy in zip(changing.images, before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_fields_on_disk_give_the_same_batches(tmp_path: Path) -> None:
    images, bits = fields()
    for number, (image, bit) in enumerate(zip(images, bits, strict=True)):
        np.save(tmp_path / f"images-{number}.npy", image)
        np.save(tmp_path / f"bits-{number}.npy", bit)
    images, bits = (
        [np.load(tmp_path / f"{name}-{number}.npy", mmap_mode="r") for number in (0, 1)] for name in ("images", "bits")
    )
    assert all(equal(Windows(images, bits, recipe())[step], windows()[step]) for step in range(8))


def test_loader_processes_are_stopped_at_the_end_and_after_an_error() -> None:
    before = set(multiprocessing.active_children())
    with open_batches(windows(), 0, 2) as batches:
        next(batches)
        assert len(set(multiprocessing.active_children()) - before) == 2
    assert set(multiprocessing.active_children()) <= before
    with pytest.raises(ZeroDivisionError), open_batches(windows(), 0, 2) as batches:
        raise ZeroDivisionError(next(batches))
    assert set(multiprocessing.active_children()) <= before


def test_labels_are_the_first_28_bits() -> None:
    bits = VALUES.reshape(2, 2, 2)
    expected = np.stack([bits >> np.uint32(label) & 1 for label in range(len(LABELS))], axis=1)
    found = labels_of(torch.from_numpy(bits.astype(np.int64)))
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), expected)
    assert found[0, :, 1, 1].sum() == 0  # bit 31 alone


@pytest.mark.parametrize(
    ("augment", "side"), [({"crop": 0.3}, 38), ({"crop": 0.125}, 16), ({"crop": 0.01}, 1), ({"warp": 0.5}, 64)]
)
def test_windows_that_do_not_fit_the_network_or_are_warped_are_refused(augment: dict[str, float], side: int) -> None:
    message = rf"augment: windows of {side} px \(crop x size\) must be a multiple of 32 px, and warp must be 0"
    with pytest.raises(InputError, match=message):
        windows(**augment)
