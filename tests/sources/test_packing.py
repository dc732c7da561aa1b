"""Packing: every pixel and figure as in the files, every fault named, nothing half-written."""

import io
import shutil
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS
from pipeline.sources import images
from pipeline.sources.archive import open_archive
from pipeline.sources.packed_array import COLUMNS
from pipeline.sources.packing import IMAGES, INDEX, pack
from pipeline.sources.samples import list_samples, unlisted
from tests.fixtures.archives import TEST, TRAIN, competition, field, png, table, write_files, write_zip

REAL = Path("../shared/hpa")
IDS = [*TRAIN, *TEST]


def packed(source: Path, folder: Path, size: int = 24) -> tuple[np.ndarray, pd.DataFrame]:
    folder.mkdir(exist_ok=True)
    with open_archive(source) as archive:
        samples, problems = list_samples(archive)
        index = pack(archive, samples, size, folder, problems)
    return np.load(folder / IMAGES), index


def test_pixels_and_figures_are_those_of_the_files(tmp_path: Path) -> None:
    files = competition(antibodies=True)
    write_zip(tmp_path / "source/competition.zip", files)
    pixels, index = packed(tmp_path / "source", tmp_path / "out")
    assert np.array_equal(pixels, np.stack([field(id_) for id_ in IDS]))
    assert list(index.columns) == list(COLUMNS)
    assert index["id"].tolist() == IDS
    assert index["row"].tolist() == list(range(len(IDS)))
    assert index["height"].tolist() == index["width"].tolist() == [24] * len(IDS)
    for row, id_ in enumerate(IDS):
        for number, channel in enumerate(CHANNELS):
            image = field(id_)[..., number]
            data = next(files[name] for name in files if name.endswith(f"{id_}_{channel}.png"))
            assert index.loc[row, f"digest_{channel}"] == f"{zlib.crc32(data):08x}{len(data):08x}"
            assert index.loc[row, f"mean_{channel}"] == pytest.approx(image.mean() / 255)
            assert index.loc[row, f"std_{channel}"] == pytest.approx(image.std() / 255)
            assert index.loc[row, f"saturated_{channel}"] == pytest.approx(np.mean(image == 255))


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    write_files(tmp_path / "source", competition())
    for name in ("a", "b"):
        packed(tmp_path / "source", tmp_path / name)
    for name in (IMAGES, INDEX):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_samples_of_several_sizes_come_to_one(tmp_path: Path) -> None:
    small, large = competition({"a": "1"}, (), side=8), competition({"b": "2"}, (), side=48)
    write_files(tmp_path / "source", small | large | {"train.csv": table("Id,Target", "a,1", "b,2")})
    pixels, index = packed(tmp_path / "source", tmp_path / "out", size=16)
    assert index["height"].tolist() == index["width"].tolist() == [8, 48]
    means = field("b", 48).reshape(16, 3, 16, 3, 4).mean(axis=(1, 3))
    assert np.abs(pixels[1] - means).max() <= 0.5
    assert np.array_equal(pixels[0], images.fit(field("a", 8), 16))


def test_stains_as_jpeg_are_taken_where_there_is_no_png(tmp_path: Path) -> None:
    files = {"train.csv": table("Id,Target", "1_2_A1_3,1")}
    for channel, colour in zip(CHANNELS, [(0, 90, 0), (0, 0, 60), (200, 0, 0), (120, 120, 0)], strict=True):
        buffer = io.BytesIO()
        Image.new("RGB", (16, 16), colour).save(buffer, "JPEG", quality=100)
        files[f"1_2_A1_3_{channel}.jpg"] = buffer.getvalue()
    write_files(tmp_path / "source", files)
    pixels, index = packed(tmp_path / "source", tmp_path / "out", size=16)
    assert np.abs(pixels[0].astype(int) - [90, 60, 200, 120]).max() <= 2
    assert index["group"].tolist() == ["1"]


def tiff(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "TIFF")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("spelling", "write"),
    [
        ("{}_{}.PNG", png),
        ("{}_{}.Png", png),
        ("{}_{}.tif", tiff),
        ("{}_{}.TIFF", tiff),
        ("{}_{}.ome.tif", tiff),
        ("{}_{}.OME.TIFF", tiff),
        ("{}_Green.png", png),
        ("{}_GREEN.Tif", tiff),
    ],
)
def test_channels_and_endings_are_found_in_capitals_too(
    tmp_path: Path, spelling: str, write: Callable[[np.ndarray], bytes]
) -> None:
    files = {name: data for name, data in competition({"a_1": "1"}, ()).items() if "_green" not in name}
    name = spelling.format("a_1", "green")
    write_files(tmp_path / "source", files | {f"train/{name}": write(field("a_1")[..., 0])})
    pixels, _ = packed(tmp_path / "source", tmp_path / "out")
    assert np.array_equal(pixels[0], field("a_1"))
    with open_archive(tmp_path / "source") as archive:
        assert unlisted(archive, list_samples(archive)[0]) == []


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("a_Green.png", "neither a PNG"),  # read where the plain spelling is not there
        ("A_green.png", "files are missing"),  # another id
    ],
)
def test_the_plain_spelling_is_read_first_and_ids_have_no_other(tmp_path: Path, other: str, message: str) -> None:
    write_files(tmp_path / "source", competition({"a": "1"}, ()) | {other: b"another file"})
    pixels, _ = packed(tmp_path / "source", tmp_path / "out")
    assert np.array_equal(pixels[0], field("a"))
    (tmp_path / "source/train/a_green.png").unlink()
    with pytest.raises(InputError, match=message):
        packed(tmp_path / "source", tmp_path / "out")


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"x/a_Green.png": b"", "y/a_GREEN.png": b""}, "files occur more than once: keep one of each"),
        ({"train_full_size.7z": b""}, r"files are missing: .* \(unpack train_full_size\.7z: archives other than zips"),
        ({"train/a_green.png.part": b""}, r"files are missing: .* \(unfinished downloads: train/a_green\.png\.part\)"),
        ({"train/a-green.png": b""}, "files are missing: add all four files"),
    ],
)
def test_a_stain_that_is_not_found_for_certain_is_one_message(
    tmp_path: Path, others: dict[str, bytes], message: str
) -> None:
    files = competition({"a": "1"}, ())
    del files["train/a_green.png"]
    write_files(tmp_path / "source", files | others)
    with pytest.raises(InputError, match=message):
        packed(tmp_path / "source", tmp_path / "out")


@pytest.mark.skipif(not REAL.exists(), reason="no real images here")
def test_real_full_size_and_jpeg_samples_pack(tmp_path: Path) -> None:
    for folder in ("large", "external_jpg"):
        for path in (REAL / folder).iterdir():
            (tmp_path / path.name).symlink_to(path.resolve())
    ids = ["5c27f04c-bb99-11e8-b2b9-ac1f6b6435d0", "a7faf0b4-bb99-11e8-b2b9-ac1f6b6435d0", "800_A6_1", "89_B5_1"]
    write_files(tmp_path, {"train.csv": table("Id,Target", *(f"{id_},0" for id_ in ids))})
    pixels, index = packed(tmp_path, tmp_path / "out", size=256)
    assert index["height"].tolist() == [2048, 3072, 2048, 1728]
    means = pixels.mean(axis=(1, 2)) / 255
    assert means == pytest.approx(index[[f"mean_{channel}" for channel in CHANNELS]].to_numpy(), abs=0.002)


def test_every_fault_of_an_archive_is_told_at_once(tmp_path: Path) -> None:
    ids = ["missing", "cut", "colour", "deep", "uneven", "copied", "twice", "wide", "good"]
    files = competition(
        dict.fromkeys(ids, "1") | {"label": "28", "empty": ""}, ("test", "good")
    )  # "good" is in both, with four files in both folders
    files["train.csv"] += table("twice,1")
    del files["train/missing_green.png"]
    files["train/cut_red.png"] = files["train/cut_red.png"][:-30]
    files["train/colour_blue.png"] = png(field("x")[..., :3].reshape(24, 72), colour=2)
    files["train/deep_yellow.png"] = png(field("x")[..., :2].reshape(24, 48), depth=16)
    files["train/uneven_green.png"] = png(field("x", 12)[..., 0])
    files["test/test_red.png"] = b"not an image"
    files["train/wide_red.png"] = png(field("x")[:12, :, 0])
    files["copy/copied_red.png"] = files["train/copied_red.png"]
    write_zip(tmp_path / "source/competition.zip", files)
    with pytest.raises(InputError) as caught:
        packed(tmp_path / "source", tmp_path / "out")
    message = str(caught.value)
    assert "source: 16 problems; nothing was written" in message
    for where, what in [
        ("missing_green.png", "files are missing"),
        ("competition.zip/train/cut_red.png", "a truncated file"),
        ("competition.zip/train/colour_blue.png", "a colour PNG"),
        ("competition.zip/train/deep_yellow.png", "a PNG with 16 bits"),
        ("uneven (green 12, blue 24, red 24, yellow 24)", "channels of different sizes"),
        ("copied_red.png", "files occur more than once"),
        ("competition.zip/train/wide_red.png", "not square"),
        ("competition.zip/test/test_red.png", "neither a PNG, a TIFF nor a JPEG"),
        ("twice", "ids that occur more than once in train.csv"),
        ("label ('28'), empty ('')", "targets that are not label ids"),
        ("good", "ids in both train.csv and sample_submission.csv"),
    ]:
        assert any(what in first and where in second for first, second in _pairs(message)), (where, message)


def _pairs(message: str) -> list[tuple[str, str]]:
    lines = message.splitlines()[1:]
    return list(zip(lines[::2], lines[1::2], strict=True))


def test_a_disk_too_small_is_told_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path / "source", competition())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1e6))
    with pytest.raises(
        InputError, match=r"needs 0\.1 GB of disk space, but only 0\.0 GB are free: .* lower pack\.size"
    ):
        packed(tmp_path / "source", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def tiny_zips() -> list[bytes]:
    """A competition of two samples as a zip, and as a zip in which another is stored."""
    files = competition({"a": "1"}, ("t",), side=6)
    with tempfile.TemporaryDirectory() as folder:
        plain = write_zip(Path(folder, "plain.zip"), files).read_bytes()
        nested = write_zip(Path(folder, "nested.zip"), {"all.zip": plain}).read_bytes()
    return [plain, nested]


TINY = tiny_zips()
EXPECTED = np.stack([field("a", 6), field("t", 6)])


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(TINY),
    st.lists(st.tuples(st.integers(0, len(TINY[0]) - 1), st.binary(min_size=1, max_size=8)), min_size=1, max_size=3),
)
# Offsets beyond the end of the file, from the zip's directory; found by a longer run.
@example(TINY[0], [(TINY[0].rindex(b"PK\x05\x06") + 16, b"\xff\xff\xff\xf0")])
@example(TINY[0], [(TINY[0].index(b"PK\x01\x02") + 42, b"\xff\xff\xff\xf0")])
def test_a_zip_with_changed_bytes_is_refused_or_read_right(whole: bytes, changes: list[tuple[int, bytes]]) -> None:
    data = bytearray(whole)
    for position, new in changes:
        data[position : position + len(new)] = new
    with tempfile.TemporaryDirectory() as folder:
        source = write_files(Path(folder, "source"), {"competition.zip": bytes(data)})
        try:
            pixels, index = packed(source, Path(folder, "out"), size=6)
        except InputError:
            return
        # A zip keeps no checksum of its members' names, so that a sample_submission.csv can get lost.
        assert np.array_equal(pixels, EXPECTED[: len(pixels)])
        assert index["target"].tolist() == ["1", ""][: len(pixels)]
