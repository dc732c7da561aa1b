"""The ground floor: targets, atomic writes, and how a stage ends."""

import errno
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.entry import run_main
from pipeline.core.errors import InputError, Stopped
from pipeline.core.labels import LABELS, format_target, parse_target, target_matrix
from pipeline.core.paths import replacing


@given(st.sets(st.integers(0, 27), min_size=1))
def test_targets_survive_writing_and_reading(ids: set[int]) -> None:
    assert set(parse_target(format_target(ids))) == ids
    assert set(np.flatnonzero(target_matrix([format_target(ids)])[0])) == ids


@pytest.mark.parametrize("text", ["", "  ", "28", "-1", "1.0", "0 0", "x", "²"])
def test_a_wrong_target_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_target(text)


def test_labels_are_the_competitions() -> None:
    assert len(LABELS) == 28
    assert (LABELS[0], LABELS[16], LABELS[27]) == ("Nucleoplasm", "Cytokinetic bridge", "Rods & rings")


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


def fail_with(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("x.png: broken: download it again"), "error: x.png: broken: download it again"),
        (OSError(errno.ENOSPC, "No space left on device", "a.npy"), "error: a.npy: No space left on device: free some"),
        (KeyboardInterrupt(), 130),
        (Stopped(signal.SIGTERM), 143),
    ],
)
def test_the_users_problems_end_in_a_message(error: BaseException, code: str | int) -> None:
    with pytest.raises(SystemExit) as ended:
        run_main(lambda: fail_with(error))
    assert ended.value.code == code or str(ended.value.code).startswith(str(code))


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_stage_with_its_code_and_no_traceback(
    by: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(by)
    with pytest.raises(SystemExit) as ended:
        run_main(lambda: os.kill(os.getpid(), by))
    assert ended.value.code == 128 + by
    assert capsys.readouterr().err.startswith(f"stopped by {by.name}: nothing half-written was kept")
    assert signal.getsignal(by) == before


def test_our_own_defects_keep_their_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_main(lambda: fail_with(ZeroDivisionError()))
