"""Images are stored once: each is complete or absent, and so is each zip."""

import zipfile
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS
from pipeline.fetching import atlas_store
from pipeline.fetching.atlas_store import AtlasStore
from pipeline.sources import images
from tests.fixtures.atlas_jpegs import jpeg, plane

ID = "10580_1756_B1_1"


def filled(folder: Path, *ids: str) -> AtlasStore:
    store = AtlasStore(folder, 32)
    for id_ in ids:
        for channel in CHANNELS:
            store.add(id_, channel, jpeg(id_, channel))
    return store


@pytest.mark.parametrize("channel", CHANNELS)
def test_the_stains_own_channel_is_stored_shrunk_by_area(tmp_path: Path, channel: str) -> None:
    store = AtlasStore(tmp_path, 32)
    store.add(ID, channel, jpeg(ID, channel))
    stored = cv2.imread(str(tmp_path / ".resume" / f"{ID}_{channel}.64.png"), cv2.IMREAD_UNCHANGED)
    assert stored is not None
    assert stored.shape == (32, 32)
    assert stored.dtype == np.uint8
    exact = plane(f"{ID}_{channel}").reshape(32, 2, 32, 2).mean(axis=(1, 3))
    assert np.abs(stored - exact).max() < 20  # a lossy picture; a conversion to grey would be off by 100 and more
    assert np.abs(stored - exact).mean() < 3
    assert store.has(ID, channel)


def test_an_image_that_is_small_already_is_stored_as_it_is(tmp_path: Path) -> None:
    store = AtlasStore(tmp_path, 256)
    store.add(ID, "green", jpeg(ID, "green"))
    stored = images.decode((tmp_path / ".resume" / f"{ID}_green.64.png").read_bytes(), "green")
    assert np.array_equal(stored, images.decode(jpeg(ID, "green"), "green"))


def test_a_zip_appears_when_it_is_complete_and_the_images_leave(tmp_path: Path) -> None:
    store = filled(tmp_path, ID, "1_2_A1_1")
    store.write_zip([ID])
    assert sorted(path.name for path in tmp_path.iterdir()) == [".resume", "atlas-32px-0001.zip"]
    assert sorted(path.name for path in (tmp_path / ".resume").iterdir()) == [
        f"1_2_A1_1_{channel}.64.png" for channel in sorted(CHANNELS)
    ]
    with zipfile.ZipFile(tmp_path / "atlas-32px-0001.zip") as archive:
        assert archive.namelist() == [f"{ID}_{channel}.png" for channel in CHANNELS]
        assert archive.testzip() is None
    again = AtlasStore(tmp_path, 32)
    assert all(again.has(ID, channel) and again.has("1_2_A1_1", channel) for channel in CHANNELS)
    again.write_zip(["1_2_A1_1"])
    again.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["atlas-32px-0001.zip", "atlas-32px-0002.zip"]


def test_the_same_images_give_the_same_zip(tmp_path: Path) -> None:
    for name in ("one", "two"):
        filled(tmp_path / name, ID).write_zip([ID])
    one, two = ((tmp_path / name / "atlas-32px-0001.zip").read_bytes() for name in ("one", "two"))
    assert one == two


def test_what_a_killed_run_left_is_used_if_it_is_whole(tmp_path: Path) -> None:
    filled(tmp_path, ID)
    waiting = tmp_path / ".resume"
    cut = waiting / f"{ID}_red.64.png"
    cut.write_bytes(cut.read_bytes()[:-20])
    (waiting / f"{ID}_blue.64.png").write_bytes(b"")
    (waiting / ".x_green.64.png.partial").write_bytes(b"half")
    (waiting / "zip.partial").write_bytes(b"half")
    (waiting / "lock").touch()
    store = AtlasStore(tmp_path, 32)
    assert [store.has(ID, channel) for channel in ("green", "blue", "red", "yellow")] == [True, False, False, True]
    assert sorted(path.name for path in waiting.iterdir()) == [f"{ID}_green.64.png", f"{ID}_yellow.64.png", "lock"]


def test_a_kill_between_zip_and_removal_leaves_nothing_twice(tmp_path: Path) -> None:
    store = filled(tmp_path, ID)
    left = {path: path.read_bytes() for path in (tmp_path / ".resume").iterdir()}
    store.write_zip([ID])
    for path, data in left.items():
        path.write_bytes(data)
    again = AtlasStore(tmp_path, 32)
    assert list((tmp_path / ".resume").iterdir()) == []
    assert again.sides(ID) == {}
    assert again.has(ID, "green")


def test_images_of_another_size_and_a_damaged_zip_are_refused(tmp_path: Path) -> None:
    filled(tmp_path, ID).write_zip([ID])
    with pytest.raises(
        InputError, match=r"atlas-32px-0001\.zip has images of 32 px: fetch those of 64 px into another"
    ):
        AtlasStore(tmp_path, 64)
    (tmp_path / "atlas-32px-0001.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"is damaged .*: remove it, and its samples are fetched again"):
        AtlasStore(tmp_path, 32)


def test_the_disk_is_asked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = AtlasStore(tmp_path, 512)
    needed = 2000 * 4 * 512**2 * atlas_store.BYTES_PER_PIXEL  # 1,000 samples, and once more while they become a zip
    usage = SimpleNamespace(free=needed)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    store.check_space(1000)
    usage.free = needed - 1
    with pytest.raises(InputError, match=r"1,000 samples need about 1\.0 GB at 512 px, but only 1\.0 GB are free"):
        store.check_space(1000)
