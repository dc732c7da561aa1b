"""Stored fields: the same bytes however they were drawn, masks as bits, and a check of the disk."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.core.errors import InputError
from pipeline.core.labels import LABELS
from pipeline.core.params import Simulation
from pipeline.simulation import field_store
from pipeline.simulation.competition import Entry, plan
from pipeline.simulation.field_store import CELL, Shard, draw_fields
from pipeline.simulation.render import masks, render, render_with_masks
from pipeline.sources.images import shrink_quickly
from tests.fixtures.simulation import settings

SIZE = 64
SETTINGS = settings(SIZE, seed=7).model_copy(update={"train": 7, "near_duplicates": 0.15, "fields_per_antibody": 2})
ENTRIES = [entry for entry in plan(SETTINGS) if entry.split == "train"]

Drawn = tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]


class Usage(NamedTuple):
    """As ``shutil.disk_usage`` returns it, in bytes."""

    total: int
    used: int
    free: int


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(field_store, "SHARD", 3)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the entries that this process draws."""
    ids: list[str] = []

    def watched(entry: Entry, simulation: Simulation) -> Drawn:
        ids.append(entry.id)
        return render_with_masks(entry, simulation)

    monkeypatch.setattr(field_store, "render_with_masks", watched)
    return ids


def interrupted(entry: Entry, simulation: Simulation) -> Drawn:
    if entry == ENTRIES[4]:
        raise KeyboardInterrupt
    return render_with_masks(entry, simulation)


def draw(folder: Path, workers: int = 0) -> list[Shard]:
    return draw_fields(folder, ENTRIES, SETTINGS, SIZE, workers)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def joined(shards: Sequence[Shard]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint32]]:
    return np.concatenate([shard.images for shard in shards]), np.concatenate([shard.bits for shard in shards])


def test_fields_are_the_rendered_images_in_the_order_of_the_entries(tmp_path: Path) -> None:
    shards = draw(tmp_path)
    assert [len(shard.images) for shard in shards] == [len(shard.bits) for shard in shards] == [3, 3, 1]
    images, bits = joined(shards)
    assert images.dtype == np.uint8
    assert bits.dtype == np.uint32
    assert bits.shape == (7, SIZE // CELL, SIZE // CELL)
    for image, entry in zip(images, ENTRIES, strict=True):
        np.testing.assert_array_equal(image, render(entry, SETTINGS))


@pytest.mark.parametrize("shrinking", [1, 2, 3])
def test_a_bit_is_set_where_a_pixel_of_the_mask_is(shrinking: int, tmp_path: Path) -> None:
    """At each 8 x 8 block of the stored image, which is a larger block of the drawn one if it is shrunk."""
    large = SETTINGS.model_copy(update={"size": SIZE * shrinking})
    images, bits = joined(draw_fields(tmp_path, ENTRIES, large, SIZE, workers=0))
    for image, field, entry in zip(images, bits, ENTRIES, strict=True):
        np.testing.assert_array_equal(image, shrink_quickly(render(entry, large), SIZE))
        shown, block = masks(entry, large), CELL * shrinking
        for label in range(len(LABELS)):
            for row in range(SIZE // CELL):
                for column in range(SIZE // CELL):
                    part = shown[label, row * block : (row + 1) * block, column * block : (column + 1) * block]
                    assert bool(field[row, column] >> label & 1) == part.any()
        assert (field < 2 ** len(LABELS)).all()


def test_the_bytes_do_not_depend_on_the_workers(tmp_path: Path) -> None:
    draw(tmp_path / "alone", workers=0)
    draw(tmp_path / "two", workers=2)
    assert files(tmp_path / "alone") == files(tmp_path / "two")
    assert len(files(tmp_path / "alone")) == 6


def test_an_interrupted_drawing_continues_with_the_fields_it_lacks(
    tmp_path: Path, drawn: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(field_store, "render_with_masks", interrupted)
        with pytest.raises(KeyboardInterrupt):
            draw(tmp_path / "part")
    assert [path.name for path in (tmp_path / "part").iterdir()] == ["fields-000000"]
    drawn.clear()
    draw(tmp_path / "part")
    assert drawn == [entry.id for entry in ENTRIES[3:]]
    assert files(tmp_path / "part") == files(tmp_path / "whole")


def test_a_shard_that_is_missing_or_was_left_unfinished_is_drawn_again(tmp_path: Path, drawn: list[str]) -> None:
    draw(tmp_path)
    whole = files(tmp_path)
    # What a process leaves that was killed while it wrote the second shard.
    (tmp_path / "fields-000003").rename(tmp_path / ".fields-000003.partial")
    (tmp_path / ".fields-000003.partial" / "bits.npy").write_bytes(b"unfinished")
    drawn.clear()
    draw(tmp_path)
    assert drawn == [entry.id for entry in ENTRIES[3:6]]
    assert files(tmp_path) == whole
    drawn.clear()
    images, _ = joined(draw(tmp_path))
    assert not drawn
    np.testing.assert_array_equal(images[6], render(ENTRIES[6], SETTINGS))


def test_too_little_space_is_an_error_before_anything_is_drawn(
    tmp_path: Path, drawn: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    field = 4 * SIZE**2

    def free(space: int) -> None:
        monkeypatch.setattr("shutil.disk_usage", lambda _path: Usage(0, 0, space))

    free(7 * field - 1)
    with pytest.raises(InputError, match=r"7 fields of 64 px take 0\.0 GB, but only 0\.0 GB are free") as error:
        draw(tmp_path / "store")
    assert str(tmp_path / "store") in str(error.value)
    assert "fields.train" in str(error.value)
    assert not drawn
    free(7 * field)
    draw(tmp_path / "store")
    # What is stored already takes no space.
    free(0)
    draw(tmp_path / "store")
    free(100)
    with pytest.raises(InputError, match=r"20,000 fields of 512 px take 21\.0 GB"):
        draw_fields(tmp_path / "large", ENTRIES[:1] * 20_000, SETTINGS, 512, workers=0)
