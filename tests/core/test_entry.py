"""How a command ends: exit codes, messages, and the log of stage times. Wrong flags are refused."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.core import entry, params
from pipeline.core.entry import run_main
from pipeline.core.errors import InputError, Stopped

ROOT = Path(__file__).parents[2]


def fail_with(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("x.png: broken: download it again"), "error: x.png: broken: download it again"),
        (OSError(errno.ENOSPC, "No space left on device", "a.npy"), "error: a.npy: No space left on device: free some"),
        (
            OSError(errno.EACCES, "Permission denied", "a.npy"),
            "error: a.npy: Permission denied: check write permission",
        ),
        (
            OSError(errno.EFBIG, "File too large", "a.npy"),
            "error: a.npy: File too large: choose a disk",
        ),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "error: Disk quota exceeded: free some space or choose another"),
        (OSError(errno.EIO, "Input/output error", "a.npy"), "error: a.npy: Input/output error: check the disk or"),
        (OSError(errno.ESTALE, "Stale file handle", "a.npy"), "error: a.npy: Stale file handle: check the disk or"),
        (OSError(errno.EMFILE, "Too many open files", "a.npy"), "error: a.npy: Too many open files: raise the number"),
        (
            OSError(errno.ENAMETOOLONG, "File name too long", "a" * 300),
            f"error: {'a' * 300}: File name too long: shorten",
        ),
        (
            IsADirectoryError(errno.EISDIR, "Is a directory", "a"),
            "error: a: Is a directory: a file has to be there: move",
        ),
        # As HDF5 says it.
        (OSError(errno.ENOSPC, "write failed: file descriptor = 6"), "error: No space left on device: free some space"),
        (MemoryError(), "error: not enough memory: close other programs or raise the limit, or lower batch_size"),
        (MemoryError("Unable to allocate 9 GiB"), "error: not enough memory (Unable to allocate 9 GiB): close other"),
        (KeyboardInterrupt(), 130),
        (Stopped(signal.SIGTERM), 143),
    ],
)
def test_user_errors_end_in_a_message_and_an_exit_code(error: BaseException, code: str | int) -> None:
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
    assert capsys.readouterr().err.startswith(f"stopped by {by.name}: ")
    assert signal.getsignal(by) == before


def test_bugs_keep_their_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_main(lambda: fail_with(ZeroDivisionError()))
    with pytest.raises(OSError, match="gone"):
        run_main(lambda: fail_with(OSError(errno.EBADF, "gone")))
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv"):
        run_main(lambda: print(Path("nowhere.csv").read_text()))


@pytest.mark.parametrize("name", ["models", ".resume", "data/packed", "report.html"])
@pytest.mark.parametrize("act", ["read", "write"])
def test_a_link_to_a_disk_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, act: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path(name).symlink_to("/unmounted/disk")
    path = Path(name) / "x/y.npy"

    def work() -> None:
        if act == "read":
            path.read_bytes()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)

    message = rf"^error: {name} is a link to /unmounted/disk, which does not exist: mount its disk or correct the link"
    with pytest.raises(SystemExit, match=message):
        run_main(work)
    Path(name).unlink()
    Path(name).touch()
    with pytest.raises(SystemExit, match=rf"^error: {name} is a file, but has to be a folder: move it away"):
        run_main(work)


@pytest.mark.parametrize("act", [lambda path: path.mkdir(exist_ok=True), lambda path: list(path.iterdir())])
def test_a_file_that_is_used_as_a_folder_is_named(tmp_path: Path, act: Callable[[Path], object]) -> None:
    path = tmp_path / "file"
    path.touch()

    def work() -> None:
        act(path)

    with pytest.raises(SystemExit, match=rf"^error: {path} is a file, but has to be a folder: move it away"):
        run_main(work)


def test_a_file_that_may_not_be_read_is_not_a_matter_of_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "list.csv"
    path.touch()
    monkeypatch.setattr(os, "access", lambda *_: False)  # since root may read everything
    with pytest.raises(SystemExit, match=rf"^error: {path}: Permission denied: check read permission, then run"):
        run_main(lambda: fail_with(PermissionError(errno.EACCES, "Permission denied", str(path))))


@pytest.mark.parametrize(
    ("read", "flags", "message"),
    [
        (entry.model_and_fold, ["--model", "none", "--fold", "0"], r"--model none\b.*cbam-384"),
        (entry.model_and_fold, ["--model", "cbam-384", "--fold", "7"], r"--fold 7\b.*0, 1, 2"),
        (entry.model_name, ["--model", "none"], r"--model none\b.*cbam-384"),
        (entry.source_name, ["--source", "none"], r"--source none\b.*sample"),
    ],
)
def test_a_job_that_params_do_not_have_is_refused(
    monkeypatch: pytest.MonkeyPatch, read: Callable[[params.Params], object], flags: list[str], message: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["stage", *flags])
    with pytest.raises(InputError, match=message):
        read(params.load())


def run(*command: str) -> int:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, check=False).returncode


def test_a_stage_that_fails_and_a_command_that_is_no_stage_log_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (tmp_path / ".git").mkdir()
    assert run("-m", "pipeline", "params", "--check") == 0
    assert run("-m", "pipeline.stages.submit") == 1
    assert not entry.TIMES.exists()


def test_the_last_time_of_each_job_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert entry.read_times() == {}
    stage = "from pipeline.core.entry import run_main; run_main(lambda: None)"
    (tmp_path / "as_stage.py").write_text(
        "import importlib.machinery, sys\n"
        "sys.modules['__main__'].__spec__ = importlib.machinery.ModuleSpec('pipeline.stages.train', None)\n" + stage
    )
    for arguments in (("--model", "a"), ("--model", "b"), ("--model", "a")):
        assert run("as_stage.py", *arguments) == 0
    assert len(entry.TIMES.read_text().splitlines()) == 3
    assert list(entry.read_times()["train"]) == ["--model a", "--model b"]
    entry.TIMES.write_text("train,--model a,9.0\ntrain,--model a,30.0\ntrain,--model b,60.0\nscore,,10.0\n")
    assert entry.read_times() == {"train": {"--model a": 30.0, "--model b": 60.0}, "score": {"": 10.0}}
