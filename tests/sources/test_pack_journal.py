"""Packing that was stopped: the next run goes on from what stands, and ends in the same bytes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core.errors import InputError
from pipeline.sources import images
from pipeline.sources import packing as module
from pipeline.sources.archive import Archive, open_archive
from pipeline.sources.pack_journal import JOURNAL, JournalRow, open_partial
from pipeline.sources.packing import IMAGES, INDEX, pack, pack_sample
from pipeline.sources.samples import list_samples
from tests.fixtures.archives import TEST, TRAIN, competition, png, table, write_files

ROOT = Path(__file__).parents[2]
COUNT = len(TRAIN) + len(TEST)
SHAPE = (3, 5, 5, 4)  # a row is no whole number of 8-byte words

SLOWLY = """
import sys, time
from pathlib import Path
from typing import Any
from pipeline.sources import packing as module
from pipeline.sources.archive import open_archive
from pipeline.sources.samples import list_samples
quick = module.pack_sample
def slow(*arguments):
    time.sleep(0.2)
    return quick(*arguments)
module.pack_sample = slow
with open_archive(Path(sys.argv[1])) as archive:
    module.pack(archive, list_samples(archive)[0], 24, Path(sys.argv[2]))
"""


def packed(source: Path, folder: Path, size: int = 24) -> dict[str, bytes]:
    """Pack in this process; the bytes of what was written."""
    folder.mkdir(exist_ok=True)
    with open_archive(source) as archive:
        pack(archive, list_samples(archive)[0], size, folder)
    return {name: (folder / name).read_bytes() for name in (IMAGES, INDEX)}


def count_work(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the id of each sample that is packed from now on."""
    ids: list[str] = []

    def counted(archive: Archive, stem: str, into: images.Image, *others: Any) -> object:
        ids.append(stem)
        return pack_sample(archive, stem, into, *others)

    monkeypatch.setattr(module, "pack_sample", counted)
    return ids


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_files(tmp_path / "source", competition())


def test_killed_again_and_again_it_ends_in_the_same_bytes(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "killed"
    folder.mkdir()
    for rows in (1, 4):
        child = subprocess.Popen([sys.executable, "-c", SLOWLY, source, folder], env={"PYTHONPATH": str(ROOT)})
        while child.poll() is None and _lines(folder / JOURNAL) <= rows:
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    ids = count_work(monkeypatch)
    assert packed(source, folder) == packed(source, tmp_path / "whole")
    assert len(ids) <= COUNT - 4 + COUNT  # the second packing does all


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_a_journal_cut_anywhere_is_gone_on_from(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "out"
    whole = packed(source, folder)
    journal = (folder / JOURNAL).read_bytes()
    ids = count_work(monkeypatch)
    for cut in range(0, len(journal), 97):
        (folder / JOURNAL).write_bytes(journal[:cut])
        ids.clear()
        assert packed(source, folder) == whole
        assert len(ids) == COUNT - max(0, journal[:cut].count(b"\n") - 1)


def test_a_changed_line_and_all_after_it_are_not_believed(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    whole = packed(source, folder)
    lines = (folder / JOURNAL).read_bytes().splitlines(keepends=True)
    for number in range(len(lines)):
        changed = lines.copy()
        changed[number] = changed[number].replace(b"0.", b"1.") if number else b"00000000 []\n"
        (folder / JOURNAL).write_bytes(b"".join(changed))
        assert packed(source, folder) == whole


def test_lost_pixels_are_packed_again(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "out"
    whole = packed(source, folder)
    ids = count_work(monkeypatch)
    with (folder / IMAGES).open("r+b") as file:
        file.seek(-24 * 24 * 4 - 100, os.SEEK_END)  # the end of the last row but one
        file.write(bytes(50))
    assert packed(source, folder) == whole
    assert ids == [TEST[-2]]


def test_only_what_another_archive_changes_is_packed_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    packed(source, folder)
    write_files(source, {"train/a2_red.png": png(np.full((24, 24), 7, np.uint8))})
    write_files(source, {"train.csv": table("Id,Target", "b1,1", "a2,1", "b2,2")})  # a1 is gone, b1 is the first
    ids = count_work(monkeypatch)
    now = packed(source, folder)
    assert sorted(ids) == sorted(["b1", "a2", "b2", *TEST])
    assert now == packed(source, tmp_path / "anew")


def test_work_at_another_size_or_by_other_code_is_not_used(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    packed(source, folder)
    assert packed(source, folder, size=16) == packed(source, tmp_path / "anew", size=16)
    monkeypatch.setattr(images, "VERSION", "another")
    ids = count_work(monkeypatch)
    packed(source, folder, size=16)
    assert len(ids) == COUNT


def test_a_repaired_archive_keeps_the_good_samples(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = (source / "train/b2_red.png").read_bytes()
    write_files(source, {"train/b2_red.png": b"junk"})
    with pytest.raises(InputError, match="neither a PNG"):
        packed(source, tmp_path / "out")
    write_files(source, {"train/b2_red.png": good})
    ids = count_work(monkeypatch)
    assert packed(source, tmp_path / "out") == packed(source, tmp_path / "anew")
    assert ids[0] == "b2"
    assert len(ids) == 1 + COUNT


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    with (
        open_partial(tmp_path, IMAGES, SHAPE, "test", [""] * 3),
        pytest.raises(InputError, match="another run is using this folder"),
        open_partial(tmp_path, IMAGES, SHAPE, "test", [""] * 3),
    ):
        pass


def test_rows_stand_in_any_order_and_at_any_size(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)
    with open_partial(tmp_path, IMAGES, SHAPE, "test", ["a", "b", "c"]) as partial:
        for row in (2, 0):
            partial.record(JournalRow(row, "abc"[row], partial.write(row, pixels[row]), (0.1, "x")))
    with open_partial(tmp_path, IMAGES, SHAPE, "test", ["a", "b", "other"]) as partial:
        assert partial.done == {0: (0.1, "x")}
        partial.write(1, pixels[1])
    assert np.array_equal(np.load(tmp_path / IMAGES), pixels)
