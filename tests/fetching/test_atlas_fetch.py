"""A list of samples becomes a source that `pack` reads, whatever the server does, and nothing is fetched twice."""

import errno
import gc
import os
import signal
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.atlas_server import AtlasServer, Manner, serving
from pipeline.core.errors import InputError, Stopped
from pipeline.core.labels import CHANNELS
from pipeline.fetching import atlas_fetch
from pipeline.fetching.atlas_fetch import AtlasRun, Politeness, check_tables, fetch_atlas
from pipeline.fetching.atlas_list import AtlasSample
from pipeline.fetching.atlas_store import AtlasStore
from pipeline.sources.archive import open_archive
from pipeline.sources.packing import pack
from pipeline.sources.samples import list_samples
from tests.fixtures.atlas_jpegs import jpeg, served

FAST = Politeness(connections=3, rate=1000, pause=0.001)
SIZE = 32


def samples(number: int) -> list[AtlasSample]:
    """Samples of a few antibodies, of si plates among them."""
    names = [(f"{100 + row // 3}", f"{'si' if row % 5 == 4 else ''}{row % 3}_A1_{row}") for row in range(number)]
    return [
        AtlasSample(f"{antibody}_{image}", str(row % 28), antibody, image)
        for row, (antibody, image) in enumerate(names)
    ]


def fetch(server: AtlasServer, folder: Path, wanted: list[AtlasSample], polite: Politeness = FAST) -> AtlasRun:
    run = AtlasRun(wanted, AtlasStore(folder, SIZE), server.address)
    fetch_atlas(run, polite, folder.parent / "missing.csv")
    return run


def packed(folder: Path, into: Path) -> bytes:
    into.mkdir()
    with open_archive(folder) as archive:
        listed, problems = list_samples(archive)
        pack(archive, listed, SIZE, into, problems)
    return (into / "images.npy").read_bytes()


def test_a_list_becomes_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atlas_fetch, "ZIPPED", 4)
    wanted = samples(10)
    with serving(served, lambda *_: "well") as server:
        fetch(server, tmp_path / "hpa", wanted)
    assert sorted(path.name for path in (tmp_path / "hpa").iterdir()) == [
        *(f"atlas-32px-000{number}.zip" for number in (1, 2, 3)), "groups.csv", "train.csv",
    ]  # fmt: skip
    assert server.requests.total() == 40
    assert server.most <= FAST.connections
    assert server.agents == {"hpa-atlas/0.1.0 (aiohttp)"}
    assert not (tmp_path / "missing.csv").exists()
    packed(tmp_path / "hpa", tmp_path / "packed")
    index = pd.read_csv(tmp_path / "packed/index.csv", dtype=str)
    assert index["id"].tolist() == [sample.id for sample in wanted]
    assert index["target"].tolist() == [sample.target for sample in wanted]
    assert index["group"].tolist() == [sample.antibody for sample in wanted]  # those of si plates too
    array = np.load(tmp_path / "packed/images.npy")
    store = AtlasStore(tmp_path / "alone", SIZE)
    store.add("x", "red", jpeg(wanted[7].id, "red"))
    from pipeline.sources import images

    (stored,) = (tmp_path / "alone/.resume").iterdir()
    assert np.array_equal(array[7, ..., CHANNELS.index("red")], images.decode(stored.read_bytes(), "red"))


def test_a_misbehaving_server_gives_the_same_source(tmp_path: Path) -> None:
    wanted = samples(12)
    manners: dict[int, Manner] = {0: "error", 1: "truncated", 2: "dropped", 3: "page", 4: "cut", 5: "slow"}

    def badly(path: str, number: int) -> Manner:
        return manners.get(zlib.crc32(path.encode()) % 8, "well") if number <= 2 else "well"

    def well(*_: object) -> Manner:
        return "well"

    for name, manner in (("well", well), ("badly", badly)):
        with serving(served, manner) as server:
            fetch(server, tmp_path / name, wanted)
            assert server.most <= FAST.connections
            assert max(server.served.values()) <= 2
    assert packed(tmp_path / "well", tmp_path / "p1") == packed(tmp_path / "badly", tmp_path / "p2")


def test_a_signal_within_a_task_ends_quietly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def stop(*_: object) -> bool:
        raise Stopped(signal.SIGINT)

    monkeypatch.setattr(AtlasStore, "has", stop)
    with serving(served, lambda *_: "well") as server, pytest.raises(Stopped):
        fetch(server, tmp_path / "hpa", samples(4))
    gc.collect()  # of the tasks, whose exceptions asyncio reports then
    assert not caplog.records


def test_what_cannot_be_had_is_listed_and_tried_again_by_another_run(tmp_path: Path) -> None:
    wanted = samples(6)
    gone, broken = wanted[1], wanted[4]
    bad: dict[str, Manner] = {
        f"/{gone.antibody}/{gone.image}_red.jpg": "missing",
        f"/{broken.antibody}/{broken.image}_green.jpg": "cut",
    }
    with serving(served, lambda path, _: bad.get(path, "well")) as server:
        run = fetch(server, tmp_path / "hpa", wanted)
        assert len(run.lacking) == 2
        table = pd.read_csv(tmp_path / "missing.csv")
        assert sorted(zip(table["id"], table["channel"], strict=True)) == sorted(
            [(gone.id, "red"), (broken.id, "green")]
        )
        assert table["reason"].str.contains("404").sum() == table["reason"].str.contains("truncated").sum() == 1
        assert table["address"].str.startswith("http://127.0.0.1").all()
        ids = pd.read_csv(tmp_path / "hpa/train.csv")["Id"].tolist()
        assert ids == [sample.id for sample in wanted if sample not in (gone, broken)]
        packed(tmp_path / "hpa", tmp_path / "p1")  # a source that is whole
        before = server.served.copy()
        bad.clear()
        fetch(server, tmp_path / "hpa", wanted)
        assert max((server.served - before).values()) == 1
        assert all(not before[path] for path in server.served - before)  # nothing that was stored
    assert pd.read_csv(tmp_path / "hpa/train.csv")["Id"].tolist() == [sample.id for sample in wanted]
    assert not (tmp_path / "missing.csv").exists()


def test_a_longer_list_adds_to_the_source(tmp_path: Path) -> None:
    with serving(served, lambda *_: "well") as server:
        fetch(server, tmp_path / "hpa", samples(3))
        fetch(server, tmp_path / "hpa", samples(5))
        assert server.requests.total() == 20
    assert len(pd.read_csv(tmp_path / "hpa/train.csv")) == 5


def test_a_file_that_changes_on_the_server_is_not_fetched_again(tmp_path: Path) -> None:
    wanted = samples(4)
    late = f"/{wanted[3].antibody}/{wanted[3].image}_yellow.jpg"
    version = "first"

    def files(path: str) -> bytes | None:
        return served(path) if version == "first" else jpeg(f"{version}{path}", "green")

    with serving(files, lambda path, _: "missing" if path == late and version == "first" else "well") as server:
        fetch(server, tmp_path / "hpa", wanted)
        first = packed(tmp_path / "hpa", tmp_path / "p1")
        version = "second"
        fetch(server, tmp_path / "hpa", wanted)
    second = packed(tmp_path / "hpa", tmp_path / "p2")
    pixels = 3 * SIZE * SIZE * 4
    assert first[-pixels:] == second[-pixels - SIZE * SIZE * 4 : -SIZE * SIZE * 4]


def test_stains_of_different_sizes_are_no_sample(tmp_path: Path) -> None:
    (sample,) = samples(1)

    def files(path: str) -> bytes | None:
        return jpeg("x", "red", 128) if path.endswith("red.jpg") else served(path)

    with (
        serving(files, lambda *_: "well") as server,
        pytest.raises(InputError, match=r"none of the 1 samples could be fetched \(100_0_A1_0: channels of diff"),
    ):
        fetch(server, tmp_path / "hpa", [sample])
    assert (
        "channels of different sizes: 100_0_A1_0 (green 64, blue 64, red 128, yellow 64)"
        in (tmp_path / "missing.csv").read_text()
    )
    assert not (tmp_path / "hpa/train.csv").exists()


@pytest.mark.parametrize(
    ("manner", "expected"),
    [("missing", r"not on the server \(HTTP 404\)"), ("forbidden", r"refused \(HTTP 403 Forbidden\)")],
)
def test_a_server_that_has_nothing_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, manner: Manner, expected: str
) -> None:
    for name in ("HOPELESS", "AT_FIRST"):
        monkeypatch.setattr(atlas_fetch, name, 5)
    with (
        serving(served, lambda *_: manner) as server,
        pytest.raises(InputError, match=rf"the last 5 files could not be had; http.*: {expected}: check the address"),
    ):
        fetch(server, tmp_path / "hpa", samples(30))
    assert server.requests.total() < 5 + FAST.connections
    assert not (tmp_path / "hpa/train.csv").exists()


def test_a_server_that_lacks_many_does_not_end_the_run_once_one_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atlas_fetch, "HOPELESS", 3)
    wanted = samples(20)
    there = f"/{wanted[0].antibody}/{wanted[0].image}_"
    alone = Politeness(connections=1, rate=1000, pause=0.001)
    with serving(served, lambda path, _: "well" if path.startswith(there) else "missing") as server:
        run = fetch(server, tmp_path / "hpa", wanted, alone)
    assert len(run.lacking) == 19
    assert pd.read_csv(tmp_path / "hpa/train.csv")["Id"].tolist() == [wanted[0].id]


def test_a_full_disk_is_the_systems_own_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(AtlasStore, "add", full)
    with serving(served, lambda *_: "well") as server, pytest.raises(OSError, match="No space left on device"):
        fetch(server, tmp_path / "hpa", samples(9))


def test_tables_of_somebody_else_are_not_overwritten(tmp_path: Path) -> None:
    wanted = samples(3)
    check_tables(tmp_path, wanted)
    (tmp_path / "train.csv").write_text(f"Id,Target\n{wanted[1].id},{wanted[1].target}\n")
    check_tables(tmp_path, wanted)
    (tmp_path / "groups.csv").write_bytes(b"Id,\xe9\n")
    with pytest.raises(InputError, match=r"groups\.csv is no table of an earlier run .*: fetch into another folder"):
        check_tables(tmp_path, wanted)
    (tmp_path / "groups.csv").unlink()
    (tmp_path / "train.csv").write_text(f"Id,Target\n{wanted[1].id},27\nmine,0\n")
    with pytest.raises(InputError, match=r"train\.csv has 2 rows that the list does not give, such as '100_1_A1_1,27'"):
        check_tables(tmp_path, wanted)
