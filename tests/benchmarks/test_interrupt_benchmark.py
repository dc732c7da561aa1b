"""The interruption benchmark detects differing files, and kills all processes that a command started."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from benchmarks.interrupt import corrupt_locks, differing, digests, repair_lock, started_stages, stop


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


def test_started_stages_are_read_from_the_log() -> None:
    log = (
        "Running stage 'data/sample/dvc.yaml:simulate':\n> python\nStage 'pack@x' is cached\n"
        "Running stage 'contact-sheet@x':\nRunning stage 'tta@a-b-0':\n"
    )
    assert started_stages(log) == ["simulate", "contact-sheet", "tta"]


def test_a_corrupt_lock_is_restored_and_counted_and_other_failures_are_raised(tmp_path: Path) -> None:
    (tmp_path / "dvc.lock").write_text("whole")
    someone = ["-c", "user.name=a", "-c", "user.email=a"]
    for command in (["init", "--quiet"], ["add", "."], [*someone, "commit", "--quiet", "--message", "a"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    (tmp_path / "dvc.lock").write_text("wh")
    (tmp_path / "repro.log").write_text("ERROR: './dvc.lock' validation failed.")
    repair_lock(tmp_path)
    assert (tmp_path / "dvc.lock").read_text() == "whole"
    assert corrupt_locks(tmp_path) == 1
    (tmp_path / "repro.log").write_text("Running stage 'pack':\nERROR: failed\nUpdating lock file 'dvc.lock'")
    with pytest.raises(RuntimeError, match="failed"):
        repair_lock(tmp_path)


def alive(process: int) -> bool:
    """Whether a process is running; a zombie is not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_child_processes_are_killed_too(tmp_path: Path) -> None:
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
