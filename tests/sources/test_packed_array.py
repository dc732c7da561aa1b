"""Reading a packed source back, and refusing one that is damaged."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.core import paths
from pipeline.core.errors import InputError
from pipeline.sources.archive import open_archive
from pipeline.sources.packed_array import IMAGES, INDEX, channel_statistics, open_images, read_index
from pipeline.sources.packing import pack
from pipeline.sources.samples import list_samples
from tests.fixtures.archives import competition, field, write_files


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The packed folder of a source named tiny, whose ids look like numbers and missing values."""
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path / "data/tiny", competition({"007": "1", "NA": "2 0"}, ["1e5"], side=4))
    paths.packed("tiny").mkdir(parents=True)
    with open_archive(paths.source("tiny")) as archive:
        pack(archive, list_samples(archive)[0], 4, paths.packed("tiny"))
    return paths.packed("tiny")


def test_what_was_packed_is_read_back(folder: Path) -> None:  # noqa: ARG001
    index, images = read_index("tiny"), open_images("tiny")
    assert index["id"].tolist() == ["007", "NA", "1e5"]
    assert index["target"].tolist() == ["1", "0 2", ""]
    assert index["group"].tolist() == ["", "", ""]
    assert np.array_equal(images, np.stack([field(id_, 4) for id_ in index["id"]]))
    assert not images.flags.writeable


def test_statistics_of_some_samples_are_those_of_their_pixels(folder: Path) -> None:  # noqa: ARG001
    chosen = pd.DataFrame({"source": "tiny", "row": [2, 0]})
    mean, std = channel_statistics(chosen)
    pixels = open_images("tiny")[[0, 2]] / 255
    assert mean == pytest.approx(pixels.mean(axis=(0, 1, 2)), abs=1e-6)
    assert std == pytest.approx(pixels.std(axis=(0, 1, 2)), abs=1e-5)


def test_a_source_that_is_not_packed_is_named(folder: Path) -> None:
    (folder / IMAGES).unlink()
    with pytest.raises(InputError, match=r"images\.npy is missing: .*--source tiny"):
        open_images("tiny")
    with pytest.raises(InputError, match=r"index\.csv is missing: .*--source other"):
        read_index("other")


@pytest.mark.parametrize("keep", [0, 50, -1])
def test_a_cut_array_is_refused(folder: Path, keep: int) -> None:
    data = (folder / IMAGES).read_bytes()
    (folder / IMAGES).write_bytes(data[:keep])
    with pytest.raises(InputError, match=r"images\.npy is damaged"):
        open_images("tiny")


@pytest.mark.parametrize("shape", [(3, 4, 4), (3, 4, 4, 3), (2, 4, 4, 4), (3, 4, 5, 4)])
def test_an_array_of_another_shape_is_refused(folder: Path, shape: tuple[int, ...]) -> None:
    np.save(folder / IMAGES, np.zeros(shape, np.uint8))
    with pytest.raises(InputError, match=r"images\.npy is damaged"):
        open_images("tiny")


@pytest.mark.parametrize(
    ("old", "new"),
    [("row,id", "id,row"), ("height", "tallness"), ("\n1,", "\n5,"), ("\n1,", "\n,"), ("train", "tr\x00ain\n")],
)
def test_a_changed_index_is_refused(folder: Path, old: str, new: str) -> None:
    text = (folder / INDEX).read_text()
    assert old in text
    (folder / INDEX).write_text(text.replace(old, new))
    with pytest.raises(InputError, match=r"index\.csv is damaged"):
        read_index("tiny")
