"""Which files are a sample's: those of its id, or of the one other spelling that there is."""

from pathlib import Path

import pytest

from pipeline.sources.archive import open_archive
from pipeline.sources.file_names import sample_file, stain_file, stems
from tests.fixtures.archives import write_files


@pytest.mark.parametrize(
    ("files", "id_", "stem"),
    [
        (["a1_green.png"], "a1", "a1"),
        (["a1_green.png"], "A1", "a1"),
        (["0aF_red.JPG"], "0AF", "0aF"),
        (["a1_green.png"], "a1.png", "a1"),
        (["a1_green.png"], "a1_green.png", "a1"),
        (["a1_green.png"], "A1_RED.ome.tif", "a1"),
        (["a1_green.png"], "a1_pink.png", "a1_pink.png"),
        (["a1.png_green.png", "a1_green.png"], "a1.png", "a1.png"),  # it is the id
        (["a1_green.png", "A1_green.png"], "A1", "A1"),
        (["a1_green.png", "A1_green.png"], "A1.png", "A1"),
        (["aB_green.png", "Ab_green.png"], "ab", "ab"),  # of two that it may be, none
        (["a_green_blue.png"], "a_green", "a_green"),
        (["a1.txt"], "A1", "A1"),
        ([], "a1", "a1"),
    ],
)
def test_the_files_of_an_id(files: list[str], id_: str, stem: str, tmp_path: Path) -> None:
    write_files(tmp_path, dict.fromkeys(files, b""))
    with open_archive(tmp_path) as archive:
        assert stems(archive, [id_], one_file=False) == [stem]


@pytest.mark.parametrize(
    ("file", "id_", "stem"),
    [
        ("a1.tif", "a1", "a1"),
        ("a1.ome.tiff", "A1", "a1"),
        ("a1.TIFF", "a1.tif", "a1"),
        ("a1.png", "A1", "A1"),
        ("a1_green.tif", "a1_green", "a1_green"),
    ],
)
def test_a_sample_of_one_file(file: str, id_: str, stem: str, tmp_path: Path) -> None:
    write_files(tmp_path, {file: b""})
    with open_archive(tmp_path) as archive:
        assert stems(archive, [id_], one_file=True) == [stem]
        assert (sample_file(archive, stem) == file) == file.lower().endswith(("tif", "tiff"))


def test_of_files_with_several_endings_the_first_one_counts(tmp_path: Path) -> None:
    write_files(tmp_path, {"a_green.tif": b"", "a_green.png": b"", "b_green.TIF": b"", "c.tiff": b"", "c.tif": b""})
    with open_archive(tmp_path) as archive:
        assert stain_file(archive, "a_green") == "a_green.png"
        assert stain_file(archive, "b_green") == "b_green.TIF"
        assert stain_file(archive, "x_green") == "x_green.png"
        assert sample_file(archive, "c") == "c.tif"
        assert sample_file(archive, "x") == "x.tif"
