"""An artifact is replaced as a whole or not at all."""

import errno
from pathlib import Path

import pytest

from pipeline.core.paths import replacing


@pytest.mark.parametrize("folder", [False, True])
def test_a_failed_write_leaves_what_was_there(tmp_path: Path, folder: bool) -> None:
    path = tmp_path / "artifact"

    def write(text: str, error: OSError | None = None) -> None:
        with replacing(path) as temporary:
            if folder:
                temporary.mkdir()
            (temporary / "file" if folder else temporary).write_text(text)
            if error is not None:
                raise error

    write("old")
    with pytest.raises(OSError, match="full"):
        write("new", OSError(errno.ENOSPC, "full"))
    assert (path / "file" if folder else path).read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    write("newer")
    assert (path / "file" if folder else path).read_text() == "newer"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_names_the_file_that_was_written(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="full") as named, replacing(tmp_path / "artifact"):
        raise OSError(errno.ENOSPC, "full")
    assert named.value.filename == str(tmp_path / "artifact")
    with pytest.raises(OSError, match="read") as other, replacing(tmp_path / "artifact"):
        raise OSError(errno.EIO, "read")  # perhaps of another file
    assert other.value.filename is None
