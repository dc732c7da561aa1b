"""Reading a packed source back, and refusing one that is damaged."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.core import paths
from pipeline.core.errors import InputError
from pipeline.sources.archive import open_archive
from pipeline.sources.packed_array import channel_statistics, open_images, read_index
from pipeline.sources.packing import IMAGES, INDEX, pack
from pipeline.sources.samples import list_samples
from tests.fixtures.archives import competition, field, write_files

ARRAY, TABLE = paths.packed_images("tiny"), paths.packed_index("tiny")


@pytest.fixture(autouse=True)
def _packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pack a source named tiny, whose ids look like numbers and missing values."""
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path / "data/tiny", competition({"007": "1", "NA": "2 0"}, ["1e5"], side=4))
    with open_archive(paths.source("tiny")) as archive:
        pack(archive, list_samples(archive)[0], 4, tmp_path)
    for made, place in ((IMAGES, ARRAY), (INDEX, TABLE)):
        place.parent.mkdir(parents=True)
        (tmp_path / made).rename(place)


def test_what_was_packed_is_read_back() -> None:
    index, images = read_index("tiny"), open_images("tiny")
    assert index["id"].tolist() == ["007", "NA", "1e5"]
    assert index["target"].tolist() == ["1", "0 2", ""]
    assert index["group"].tolist() == ["", "", ""]
    assert np.array_equal(images, np.stack([field(id_, 4) for id_ in index["id"]]))
    assert not images.flags.writeable


def test_statistics_of_some_samples_are_those_of_their_pixels() -> None:
    chosen = pd.DataFrame({"source": "tiny", "row": [2, 0]})
    mean, std = channel_statistics(chosen)
    pixels = open_images("tiny")[[0, 2]] / 255
    assert mean == pytest.approx(pixels.mean(axis=(0, 1, 2)), abs=1e-6)
    assert std == pytest.approx(pixels.std(axis=(0, 1, 2)), abs=1e-5)


def test_a_source_that_is_not_packed_is_named() -> None:
    ARRAY.unlink()
    with pytest.raises(InputError, match=r"images/tiny\.npy is missing: .*--source tiny"):
        open_images("tiny")
    with pytest.raises(InputError, match=r"index/other\.csv is missing: .*--source other"):
        read_index("other")


@pytest.mark.parametrize("keep", [0, 50, -1])
def test_a_cut_array_is_refused(keep: int) -> None:
    data = ARRAY.read_bytes()
    ARRAY.write_bytes(data[:keep])
    with pytest.raises(InputError, match=r"tiny\.npy is damaged"):
        open_images("tiny")


@pytest.mark.parametrize("shape", [(3, 4, 4), (3, 4, 4, 3), (2, 4, 4, 4), (3, 4, 5, 4)])
def test_an_array_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    np.save(ARRAY, np.zeros(shape, np.uint8))
    with pytest.raises(InputError, match=r"tiny\.npy is damaged"):
        open_images("tiny")


@pytest.mark.parametrize(
    ("old", "new"),
    [("row,id", "id,row"), ("height", "tallness"), ("\n1,", "\n5,"), ("\n1,", "\n,"), ("train", "tr\x00ain\n")],
)
def test_a_changed_index_is_refused(old: str, new: str) -> None:
    text = TABLE.read_text()
    assert old in text
    TABLE.write_text(text.replace(old, new))
    with pytest.raises(InputError, match=r"tiny\.csv is damaged"):
        read_index("tiny")
