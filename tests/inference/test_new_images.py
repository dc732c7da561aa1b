"""New images come a batch at a time, however many there are."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from pipeline.core.labels import CHANNELS
from pipeline.inference import new_images
from pipeline.sources.archive import Archive, Loose
from pipeline.sources.packing import AHEAD
from tests.fixtures.archives import field, png, write_files

SIDE = 16
IDS = [f"{number:03}" for number in range(60)]


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    """Sixty samples."""
    files = {
        f"{id_}_{channel}.png": png(field(id_, SIDE)[..., position])
        for id_ in IDS
        for position, channel in enumerate(CHANNELS)
    }
    write_files(tmp_path, files)
    with new_images.open_places([tmp_path]) as archive:
        yield archive


def test_batches_hold_every_sample_once_and_in_order(archive: Archive) -> None:
    assert new_images.sample_ids(archive) == IDS
    ids, images = zip(*new_images.batches(archive, IDS, SIDE, 16), strict=True)
    assert [len(batch) for batch in ids] == [16, 16, 16, 12]
    assert [id_ for batch in ids for id_ in batch] == IDS
    np.testing.assert_array_equal(np.concatenate(images), np.stack([field(id_, SIDE) for id_ in IDS]))


def test_no_more_is_read_than_a_batch_and_what_the_threads_hold(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    whole = Loose.read

    def counted(self: Loose) -> bytes:
        read.append(self.where)
        return whole(self)

    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(Loose, "read", counted)
    with closing(new_images.batches(archive, IDS, SIDE, 8)) as batches:
        next(batches)
    assert len(read) <= (8 + AHEAD * 2 + 1) * len(CHANNELS)
