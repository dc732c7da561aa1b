"""New images come a batch at a time, however many there are."""

import os
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS
from pipeline.inference import new_images
from pipeline.inference.new_images import Layout
from pipeline.sources.archive import Archive, Loose
from pipeline.sources.threads import AHEAD
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

    def counted(self: Loose, limit: int) -> bytes:
        read.append(self.where)
        return whole(self, limit)

    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(Loose, "read", counted)
    with closing(new_images.batches(archive, IDS, SIDE, 8)) as batches:
        next(batches)
    assert len(read) <= (8 + AHEAD * 2 + 1) * len(CHANNELS)


def test_only_the_stains_of_the_layout_are_read_and_the_others_are_zero(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, read, whole = Layout(("green", "red")), [], Loose.read

    def noted(self: Loose, limit: int) -> bytes:
        read.append(self.path.name)
        return whole(self, limit)

    monkeypatch.setattr(Loose, "read", noted)
    assert new_images.sample_ids(archive, layout) == IDS
    (_, images), *_ = new_images.batches(archive, IDS, SIDE, len(IDS), layout)
    np.testing.assert_array_equal(images[..., [0, 2]], np.stack([field(id_, SIDE)[..., [0, 2]] for id_ in IDS]))
    assert images[..., [1, 3]].max() == 0
    assert sorted(read) == sorted(f"{id_}_{channel}.png" for id_ in IDS for channel in ("green", "red"))


def test_the_files_of_other_stains_make_no_sample(tmp_path: Path) -> None:
    write_files(tmp_path, {"a_green.png": b"", "b_blue.png": b"", "c_red.png": b""})
    with new_images.open_places([tmp_path]) as archive:
        assert new_images.sample_ids(archive, Layout(("green", "blue"))) == ["a", "b"]


@pytest.mark.parametrize("spelling", ["{}_{}.PNG", "{}_{}.Png"])
def test_ids_are_what_stands_before_channel_and_ending_however_they_are_spelled(tmp_path: Path, spelling: str) -> None:
    files = {
        spelling.format("x_1", channel.title()): png(field("x", SIDE)[..., position])
        for position, channel in enumerate(CHANNELS)
    }
    write_files(tmp_path, files)
    with new_images.open_places([tmp_path]) as archive:
        assert new_images.sample_ids(archive) == ["x_1"]
        [(_, images)] = new_images.batches(archive, ["x_1"], SIDE, 1)
    np.testing.assert_array_equal(images[0], field("x", SIDE))


@pytest.mark.parametrize("size", [SIDE, SIDE // 2, 2 * SIDE])
def test_a_composite_is_the_sample_of_its_red_green_and_blue(tmp_path: Path, size: int) -> None:
    image = field("a", SIDE)
    files = {f"a_{channel}.png": png(image[..., CHANNELS.index(channel)]) for channel in ("green", "blue", "red")}
    write_files(tmp_path / "single", {**files, "a_yellow.png": png(np.zeros((SIDE, SIDE), np.uint8))})
    rgb = image[..., [CHANNELS.index(channel) for channel in ("red", "green", "blue")]]
    write_files(tmp_path / "rgb", {"a.png": png(rgb.reshape(SIDE, 3 * SIDE), colour=2), "._a.png": b"", "notes": b""})
    found = []
    for folder, layout in (("single", Layout()), ("rgb", Layout(new_images.COMPOSITE_STAINS, rgb=True))):
        with new_images.open_places([tmp_path / folder]) as archive:
            assert new_images.sample_ids(archive, layout) == ["a"]
            found += [images for _, images in new_images.batches(archive, ["a"], size, 1, layout)]
    single, composite = found
    np.testing.assert_array_equal(composite, single)
    assert (composite.max(axis=(0, 1, 2)) > 0).tolist() == [True, True, True, False]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("place", [".", "a.zip"])
def test_a_zip_with_two_files_of_one_name_is_refused(tmp_path: Path, place: str) -> None:
    image = field("a", SIDE)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for position, channel in enumerate(CHANNELS):
            archive.writestr(f"a_{channel}.png", png(image[..., position]))
        archive.writestr("a_red.png", png(image[..., 0]))
    # Named twice, it counts once.
    with (
        new_images.open_places([tmp_path / place, tmp_path / "a.zip"]) as found,
        pytest.raises(
            InputError, match=r"1 problem; nothing was written\n  files occur more than once.*\n.*a_red\.png$"
        ),
    ):
        list(new_images.batches(found, ["a"], SIDE, 1))


def test_all_problems_of_composites_are_reported(tmp_path: Path) -> None:
    rgb = png(field("a", 16)[..., :3].reshape(16, 48), colour=2)
    write_files(tmp_path, {"a.png": rgb, "b.png": rgb, "b.jpeg": rgb, "c.jpg": png(field("c")[..., 0]), "d.png": rgb})
    write_files(tmp_path / "more", {"d.png": rgb})
    layout = Layout(new_images.COMPOSITE_STAINS, rgb=True)
    with new_images.open_places([tmp_path]) as archive, pytest.raises(InputError) as caught:
        list(new_images.batches(archive, new_images.sample_ids(archive, layout), 16, 8, layout))
    for part in (
        "3 problems",
        "b.png and b.jpeg",
        "same id",
        "c.jpg",
        "a grayscale image",
        "files occur more than once",
    ):
        assert part in str(caught.value)
