"""Every layout gives the same files; what strangers may put into a zip does no harm."""

import errno
import io
import os
import stat
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from pipeline.core.errors import InputError
from pipeline.sources import zips
from pipeline.sources.archive import open_archive
from tests.fixtures.archives import competition, write_files, write_zip

FILES = competition()
TABLES = {name: data for name, data in FILES.items() if name.endswith(".csv")}


def split_files(split: str, *, folder: bool) -> dict[str, bytes]:
    return {name if folder else name.split("/")[1]: FILES[name] for name in FILES if name.startswith(f"{split}/")}


def one_zip(source: Path) -> None:
    write_zip(source / "competition.zip", FILES)


def deflated_under_another_name(source: Path) -> None:
    write_zip(source / "human-protein-atlas-image-classification.zip", FILES, zipfile.ZIP_DEFLATED)


def reversed_below_a_top_folder(source: Path) -> None:
    write_zip(source / "competition.zip", {f"atlas/{name}": FILES[name] for name in reversed(FILES)})


def unpacked(source: Path) -> None:
    write_files(source, FILES)


def zips_beside_tables(source: Path) -> None:
    write_files(source, TABLES)
    write_zip(source / "train.zip", split_files("train", folder=True))
    write_zip(source / "test.zip", split_files("test", folder=False))


def every_table_zipped(source: Path) -> None:
    zips_beside_tables(source)
    for name, data in TABLES.items():
        write_zip(source / f"{name}.zip", {name: data})
        (source / name).unlink()


def zips_in_a_zip(source: Path) -> None:
    inner = source.parent / "inner"
    nested = {
        f"{split}.zip": write_zip(inner / split, split_files(split, folder=True), zipfile.ZIP_DEFLATED).read_bytes()
        for split in ("train", "test")
    }
    write_zip(source / "competition.zip", TABLES | nested)


def zip64(source: Path) -> None:
    source.mkdir(parents=True)
    with zipfile.ZipFile(source / "competition.zip", "w") as archive:
        for name, data in FILES.items():
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(data)


def backslashes(source: Path) -> None:
    write_zip(source / "competition.zip", {name.replace("/", "\\"): data for name, data in FILES.items()})


def with_strays(source: Path) -> None:
    strays = {"__MACOSX/train/._a1_red.png": b"x", "__MACOSX/._train.zip": b"x", "train/Thumbs.db": b"x", "train/": b""}
    write_zip(source / "competition.zip", strays | FILES)
    write_files(source, {"._competition.zip": b"x", ".ipynb_checkpoints/train.csv": b"x", ".DS_Store": b"x"})


def streamed(source: Path) -> None:
    """As programs write a zip that they send while they make it: sizes stand behind each member."""

    class Pipe(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: Any, /) -> int:
            return file.write(data)

    source.mkdir(parents=True)
    with (
        (source / "competition.zip").open("wb") as file,
        zipfile.ZipFile(Pipe(), "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name, data in FILES.items():
            archive.writestr(name, data)


def self_extracting(source: Path) -> None:
    one_zip(source)
    data = (source / "competition.zip").read_bytes()
    (source / "competition.zip").write_bytes(b"#!/bin/sh\nexit\n" * 100 + data)


def with_a_comment(source: Path) -> None:
    one_zip(source)
    with zipfile.ZipFile(source / "competition.zip", "a") as archive:
        archive.comment = b"of the lab's server" * 1000


def below_a_drive_and_a_folder_with_accents(source: Path) -> None:
    write_zip(source / "DATEN.ZIP", {f"C:\\Daten für Ö\\{name.replace('/', chr(92))}": FILES[name] for name in FILES})


def below_a_dot(source: Path) -> None:
    write_zip(source / "competition.zip", {f"./{name}": FILES[name] for name in FILES})


def folders_that_are_named_like_zips(source: Path) -> None:
    """As unpacking programs name them."""
    write_files(source / "train.zip", {name: FILES[name] for name in FILES if not name.startswith("test/")})
    write_zip(source / "test.zip", split_files("test", folder=True))


def with_a_recycle_bin(source: Path) -> None:
    unpacked(source)
    for folder in ("$RECYCLE.BIN/S-1-5-18", "#recycle", "@eaDir", "~snapshot/hourly.0", "lost+found", ".Trash-1000"):
        write_files(source / folder, FILES)


def zipped_with_a_recycle_bin(source: Path) -> None:
    bins = ("__MACOSX", "atlas/@eaDir", "atlas/$RECYCLE.BIN", "atlas/.ipynb_checkpoints")
    strays = {f"{folder}/{name}": b"x" for folder in bins for name in FILES}
    write_zip(source / "competition.zip", strays | {f"atlas/{name}": data for name, data in FILES.items()})


def beside_another_zip(source: Path) -> None:
    one_zip(source)
    write_zip(source / "old.zip", FILES)


LAYOUTS = [
    one_zip,
    deflated_under_another_name,
    reversed_below_a_top_folder,
    unpacked,
    zips_beside_tables,
    every_table_zipped,
    zips_in_a_zip,
    zip64,
    backslashes,
    streamed,
    self_extracting,
    with_a_comment,
    below_a_drive_and_a_folder_with_accents,
    below_a_dot,
    folders_that_are_named_like_zips,
    with_strays,
    with_a_recycle_bin,
    zipped_with_a_recycle_bin,
    beside_another_zip,
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_files(layout: Callable[[Path], None], tmp_path: Path) -> None:
    layout(tmp_path / "source")
    with open_archive(tmp_path / "source") as archive:
        for name, data in FILES.items():
            assert archive.members[name.rpartition("/")[2]].read() == data
        assert not archive.repeated


@pytest.mark.parametrize("layout", [one_zip, zips_in_a_zip])
def test_many_threads_read_one_zip(layout: Callable[[Path], None], tmp_path: Path) -> None:
    layout(tmp_path / "source")
    with open_archive(tmp_path / "source") as archive, ThreadPoolExecutor(16) as pool:
        names = [*FILES] * 40
        read = pool.map(lambda name: archive.members[name.rpartition("/")[2]].read(), names)
        assert list(read) == [FILES[name] for name in names]


def test_a_file_in_two_places_is_known_with_both(tmp_path: Path) -> None:
    write_zip(tmp_path / "a.zip", {"train.csv": b"1"})
    write_zip(tmp_path / "b.zip", {"old/train.csv": b"2"})
    with open_archive(tmp_path) as archive:
        assert archive.repeated == {"train.csv": ["a.zip/train.csv", "b.zip/old/train.csv"]}


def test_reading_changes_nothing_in_the_folder(tmp_path: Path) -> None:
    one_zip(tmp_path)
    before = (tmp_path / "competition.zip").read_bytes()
    with open_archive(tmp_path) as archive:
        archive.members["train.csv"].read()
    assert [path.name for path in tmp_path.iterdir()] == ["competition.zip"]
    assert (tmp_path / "competition.zip").read_bytes() == before


def refused(folder: Path, match: str) -> None:
    with pytest.raises(InputError, match=match), open_archive(folder):
        pass


def test_a_missing_folder_is_asked_for(tmp_path: Path) -> None:
    refused(tmp_path / "kaggle", r"kaggle is missing: create this folder and place the competition in it")


@pytest.mark.parametrize("name", ["../x.png", "/etc/x.png", "train/../../x.png", "..\\x.png", "a\x1b[2J.png"])
def test_names_that_try_to_leave_are_refused(name: str, tmp_path: Path) -> None:
    write_zip(tmp_path / "competition.zip", {name: b""})
    refused(tmp_path, "unsafe file name")


@pytest.mark.parametrize("start", [b"<!DOCTYPE html>", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07\x01", b"\x1f\x8b\x08"])
def test_what_is_only_named_a_zip_is_refused(start: bytes, tmp_path: Path) -> None:
    (tmp_path / "competition.zip").write_bytes(start + bytes(100))
    refused(tmp_path, r"competition\.zip is not a complete zip archive .*: download it again")


def test_a_part_of_a_split_zip_is_named(tmp_path: Path) -> None:
    one_zip(tmp_path)
    (tmp_path / "competition.z01").write_bytes(b"the first half")
    refused(tmp_path, r"competition\.zip is a part of a split archive: join the parts \(zip -s 0 competition\.zip")


@pytest.mark.parametrize("keep", [0, 10, 0.5, -1])
def test_a_cut_zip_is_refused(keep: float, tmp_path: Path) -> None:
    one_zip(tmp_path)
    data = (tmp_path / "competition.zip").read_bytes()
    (tmp_path / "competition.zip").write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    refused(tmp_path, "not a complete zip archive")


def test_a_zip_that_cannot_be_read_in_place_is_to_be_unpacked(tmp_path: Path) -> None:
    inner = write_zip(tmp_path / "inner", FILES).read_bytes()
    write_zip(tmp_path / "compressed/competition.zip", {"train.zip": inner}, zipfile.ZIP_DEFLATED)
    refused(tmp_path / "compressed", r"train.zip .* unpack competition.zip, delete it")
    twice = write_zip(tmp_path / "twice", {"inner.zip": inner}).read_bytes()
    write_zip(tmp_path / "nested/competition.zip", {"train.zip": twice})
    refused(tmp_path / "nested", r"inner.zip .* unpack competition.zip, delete it")


def one_member(path: Path, data: bytes, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    return write_zip(path, {"x.png": data}, compression)


def read_one(path: Path) -> bytes:
    with ExitStack() as stack:
        [member] = zips.members(path, PurePosixPath(path.name), stack)
        return member.read()


def test_a_bomb_that_states_its_size_is_refused(tmp_path: Path) -> None:
    path = one_member(tmp_path / "x.zip", bytes(zips.MAX_BYTES + 1))
    with pytest.raises(InputError, match="larger than 32 MiB"):
        read_one(path)


def test_a_bomb_that_hides_its_size_fills_no_memory(tmp_path: Path) -> None:
    path = one_member(tmp_path / "x.zip", bytes(zips.MAX_BYTES))
    data = path.read_bytes()
    # The size stands in the local header and in the directory.
    path.write_bytes(data.replace(struct.pack("<I", zips.MAX_BYTES), struct.pack("<I", 100)))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="damaged"):
            read_one(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_large_loose_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(bytes(zips.MAX_BYTES + 1))
    with open_archive(tmp_path) as archive, pytest.raises(InputError, match="larger than 32 MiB"):
        archive.members["x.png"].read()


def test_links_to_nowhere_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.png").symlink_to("nowhere")
    with open_archive(tmp_path) as archive, pytest.raises(InputError, match="No such file"):
        archive.members["x.png"].read()
    (tmp_path / "competition.zip").symlink_to("nowhere")
    refused(tmp_path, r"competition\.zip cannot be read \(No such file")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_without_a_bound_on_memory_are_refused(method: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a method other than deflate"):
        read_one(one_member(tmp_path / "x.zip", b"data", method))


@pytest.mark.parametrize("method", [9, 93, 99])
def test_methods_that_zipfile_does_not_know_are_refused(method: int, tmp_path: Path) -> None:
    """Deflate64 of Windows, Zstandard, and encryption by AES."""
    path = one_member(tmp_path / "x.zip", b"data")
    data = bytearray(path.read_bytes())
    for position in (8, data.index(b"PK\x01\x02") + 10):
        data[position : position + 2] = struct.pack("<H", method)
    path.write_bytes(data)
    with pytest.raises(InputError, match="encrypted, or compressed by a method other than deflate: create the zip"):
        read_one(path)


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    path = one_member(tmp_path / "x.zip", b"data")
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="encrypted"):
        read_one(path)


@pytest.mark.parametrize("gigabytes", [(0, 0), (3, 2), (3, 0, 3, 3)])
def test_a_zip_over_4_gb_as_archive_utility_makes_it_is_read(gigabytes: tuple[int, ...], tmp_path: Path) -> None:
    """Without zip64, with positions and the number of members modulo 2 ** 32; holes take no space on the disk."""
    directory, count = b"", 0
    with (tmp_path / "competition.zip").open("wb") as file:
        for number, size in enumerate([0, *gigabytes, 0]):
            name, data = f"{number}_green.png".encode(), bytes([number]) * 100
            fields = struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, 0, zlib.crc32(data), 100, 100, len(name), 0)
            position = file.tell() % 2**32
            file.write(b"PK\x03\x04" + fields + name + data)
            directory += b"PK\x01\x02" + struct.pack("<H", 20) + fields + bytes(10) + struct.pack("<I", position) + name
            file.seek(size * 2**30, os.SEEK_CUR)
            count += 1
        where = file.tell() % 2**32
        file.write(directory + struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, count, count, len(directory), where, 0))
    with open_archive(tmp_path) as archive:
        assert len(archive.members) == count
        for number in range(count):
            assert archive.members[f"{number}_green.png"].read() == bytes([number]) * 100


@pytest.mark.parametrize("position", [2**63 - 1, 2**64 - 1])
def test_a_position_beyond_any_file_is_damage(position: int, tmp_path: Path) -> None:
    write_zip(tmp_path / "competition.zip", {"a_green.png": b"data"})
    data = (tmp_path / "competition.zip").read_bytes()
    start = data.index(b"PK\x01\x02")
    extra = struct.pack("<HHQ", 1, 8, position)  # zip64: the position is here
    name = struct.unpack_from("<H", data, start + 28)[0]
    entry = bytearray(data[start : start + 46 + name])
    struct.pack_into("<H", entry, 30, len(extra))
    struct.pack_into("<I", entry, 42, 2**32 - 1)
    end = data[data.index(b"PK\x05\x06") :]
    end = end[:12] + struct.pack("<I", len(entry) + len(extra)) + end[16:]
    (tmp_path / "competition.zip").write_bytes(data[:start] + bytes(entry) + extra + end)
    with open_archive(tmp_path) as archive, pytest.raises(InputError, match="damaged in its zip"):
        archive.members["a_green.png"].read()


def test_a_changed_byte_of_a_member_is_noticed(tmp_path: Path) -> None:
    path = one_member(tmp_path / "x.zip", b"the data of an image", zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"data", b"date"))
    with pytest.raises(InputError, match="damaged"):
        read_one(path)


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("train/a_red.png")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "competition.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    refused(tmp_path, "contains a link, train/a_red.png")


def test_folders_that_link_to_each_other_end(tmp_path: Path) -> None:
    write_files(tmp_path, {"train/a_red.png": b"x"})
    for name in ("up", "train/up", "train/again"):
        (tmp_path / name).symlink_to(tmp_path)
    with open_archive(tmp_path) as archive:
        assert list(archive.members) == ["a_red.png"]
        assert not archive.repeated


def test_a_folder_that_cannot_be_listed_is_named_and_not_the_files_that_it_hides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked(tmp_path)
    scan = os.scandir

    def refuse(path: str) -> object:
        if path == str(tmp_path / "train"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    refused(tmp_path, r"/train: this folder cannot be listed \(Permission denied\): correct its permissions$")


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a_red.png")
    with open_archive(tmp_path) as archive, pytest.raises(InputError, match="not a regular file"):
        archive.members["a_red.png"].read()
    os.mkfifo(tmp_path / "competition.zip")
    refused(tmp_path, "competition.zip is not a regular file")


@pytest.mark.parametrize("layout", [one_zip, unpacked, zips_in_a_zip])
def test_a_stamp_changes_with_the_bytes_alone(layout: Callable[[Path], None], tmp_path: Path) -> None:
    layout(tmp_path / "source")
    with open_archive(tmp_path / "source") as archive:
        before = {name: member.stamp() for name, member in archive.members.items()}
    with open_archive(tmp_path / "source") as archive:
        assert {name: member.stamp() for name, member in archive.members.items()} == before
    changed = {name: data[:-1] + b"!" for name, data in FILES.items()}
    write_zip(tmp_path / "other/competition.zip", changed)
    with open_archive(tmp_path / "other") as archive:
        assert all(member.stamp() != before[name] for name, member in archive.members.items())
