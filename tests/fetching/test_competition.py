"""The competition's archive gets its name when every member is whole and every sample has its images."""

import io
import zipfile
from pathlib import Path

import pytest

from pipeline.core.errors import InputError
from pipeline.fetching import competition
from pipeline.fetching.kaggle_client import COMPETITION, KaggleAccount
from pipeline.sources.archive import open_archive
from pipeline.sources.samples import list_samples
from tests.fixtures import archives
from tests.fixtures.kaggle_server import KaggleServer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


def zipped(files: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A source's folder as the command leaves it to `fetch`: with the folder of what is not finished."""
    (tmp_path / "kaggle/.resume").mkdir(parents=True)
    (tmp_path / "kaggle/.resume/lock").touch()
    return tmp_path / "kaggle"


def fetch(folder: Path) -> str:
    """Fetch as the command does."""
    return competition.check_placed(folder) or competition.fetch(folder, KaggleAccount(COMPETITION))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_archive_is_fetched_and_can_be_packed(kaggle: KaggleServer, folder: Path) -> None:
    kaggle.archive = zipped(archives.competition())
    (folder / "groups.csv").write_text("id,antibody\n")  # the user's own stays
    found = fetch(folder)
    assert "4 training and 3 test samples, complete and undamaged" in found
    assert names(folder) == ["competition.zip", "groups.csv"]
    assert (folder / "competition.zip").read_bytes() == kaggle.archive
    (folder / "groups.csv").unlink()
    with open_archive(folder) as archive:
        samples, problems = list_samples(archive)
    assert (len(samples), problems) == (7, [])


def test_a_sample_without_an_image_is_found_and_the_archive_gets_no_name(kaggle: KaggleServer, folder: Path) -> None:
    files = archives.competition()
    del files["train/a2_red.png"], files["test/t1_blue.png"]
    kaggle.archive = zipped(files)
    with pytest.raises(InputError, match=r"images are missing of 7 samples\n    a2_red, t1_blue") as error:
        fetch(folder)
    assert "the archive was removed: run the same command again" in str(error.value)
    assert names(folder) == [".resume"]
    assert names(folder / ".resume") == ["lock"]


def test_an_archive_without_tables_is_removed_and_the_message_says_so(kaggle: KaggleServer, folder: Path) -> None:
    kaggle.archive = zipped({"other.csv": b""})
    with pytest.raises(InputError, match=r"there is no train\.csv .*; the archive was removed: run the same command"):
        fetch(folder)
    assert names(folder / ".resume") == ["lock"]


@pytest.mark.parametrize("member", ["train/b1_green.png", "train.csv"])
def test_a_damaged_member_is_found_by_its_checksum(kaggle: KaggleServer, folder: Path, member: str) -> None:
    whole = zipped(archives.competition())
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        info = archive.getinfo(member)
    middle = info.header_offset + 30 + len(member) + info.compress_size // 2
    kaggle.archive = whole[:middle] + bytes([whole[middle] ^ 0xFF]) + whole[middle + 1 :]
    with pytest.raises(InputError, match=rf"files of competition\.zip are damaged\n    {member}"):
        fetch(folder)
    assert names(folder) == [".resume"]


def test_a_truncated_zip_is_refused(kaggle: KaggleServer, folder: Path) -> None:
    kaggle.archive = zipped(archives.competition())[:-30]
    with pytest.raises(InputError, match=r"not a complete zip archive \(File is not a zip file\)"):
        fetch(folder)
    assert names(folder) == [".resume"]


def test_ids_in_other_capitals_than_the_files_have_their_images(folder: Path) -> None:
    files = archives.competition()
    files["train.csv"] = files["train.csv"].replace(b"a1,", b"A1,").replace(b"b2,", b"b2.png,")
    archives.write_zip(folder / "competition.zip", files)
    assert competition.check_placed(folder).endswith("complete and undamaged, as it was")


def test_a_zip_of_an_unknown_version_is_named(folder: Path) -> None:
    whole = bytearray(zipped(archives.competition()))
    whole[whole.index(b"PK\x01\x02") + 6] = 99  # the version that the first member needs
    (folder / "competition.zip").write_bytes(whole)
    with pytest.raises(InputError, match=r"not a complete zip archive \(zip file version 9\.9\)"):
        competition.check_placed(folder)


def test_files_that_are_there_are_checked_and_kept(kaggle: KaggleServer, folder: Path) -> None:
    archives.write_zip(folder / "human-protein-atlas-image-classification.zip", archives.competition())
    assert fetch(folder).endswith("complete and undamaged, as it was")
    assert not kaggle.users  # nobody was asked
    files = archives.write_files(folder / "more", {"train/zz.csv": b""})
    (folder / "human-protein-atlas-image-classification.zip").write_bytes(b"PK\x03\x04 half of it")
    with pytest.raises(InputError, match=r"nothing was fetched: move the files away, or fetch into another folder"):
        fetch(folder)
    assert files.exists()
    assert (folder / "human-protein-atlas-image-classification.zip").read_bytes() == b"PK\x03\x04 half of it"
