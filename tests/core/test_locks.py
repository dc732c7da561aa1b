"""A folder belongs to one run at a time."""

import errno
import fcntl
from pathlib import Path

import pytest

from pipeline.core.errors import InputError
from pipeline.core.locks import locked


def test_a_lock_is_held_once_and_can_be_held_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lock"
    with (
        locked(path),
        pytest.raises(InputError, match="new: another run is using this folder: wait for it"),
        locked(path),
    ):
        pass
    with locked(path):
        pass


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_where_there_are_no_locks_it_is_said_and_the_work_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, "not here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path / "lock"):
        pass
    assert "this file system has no locks: do not start a second run" in capsys.readouterr().err


def test_other_failures_are_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(OSError, match="broken"), locked(tmp_path / "lock"):
        pass
