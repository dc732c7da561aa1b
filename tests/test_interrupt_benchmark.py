"""The killing benchmark notices what differs, and kills all that a command started."""

import os
import signal
import subprocess
import time
from pathlib import Path

from benchmarks.interrupt import begun, differing, digests, stop


def test_a_missing_an_added_and_a_changed_file_differ(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "models" / "a").mkdir(parents=True)
        (tmp_path / name / "models" / "a" / "fold-0").write_text("same")
        (tmp_path / name / "submission.csv").write_text(name)
    (tmp_path / "two" / "blend").mkdir()
    (tmp_path / "two" / "blend" / "test.npz").write_text("")
    one, two = digests(tmp_path / "one"), digests(tmp_path / "two")
    assert set(one) == {"models/a/fold-0", "submission.csv"}
    assert differing(one, one) == 0
    assert differing(one, two) == differing(two, one) == 2


def test_the_stage_that_is_going_is_read_from_the_log() -> None:
    log = (
        "Running stage 'data/sample/dvc.yaml:simulate':\n> python\nStage 'pack' is cached\nRunning stage 'tta@a-b-0':\n"
    )
    assert begun(log) == ["simulate", "tta"]


def alive(process: int) -> bool:
    """Whether a process runs still; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_children_are_killed_too(tmp_path: Path) -> None:
    command = f"sleep 60 & echo $! > {tmp_path}/child; wait"
    process = subprocess.Popen(["sh", "-c", command], start_new_session=True)
    while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text().strip():
        pass
    stop(process, signal.SIGKILL)
    child = int((tmp_path / "child").read_text())
    until = time.monotonic() + 20  # a signal is delivered when the kernel next runs the process; sleep ends after 60
    while alive(child) and time.monotonic() < until:
        time.sleep(0.01)
    assert not alive(child)
    assert process.returncode == -signal.SIGKILL
    assert os.getpgid(0) != process.pid
