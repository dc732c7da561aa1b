"""The stage ``pack`` as it is run: its files, its exit codes, and what it leaves behind when it fails."""

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core.entry import run_main
from pipeline.sources.packed_array import open_images, read_index
from pipeline.sources.packing import pack
from pipeline.stages import pack as stage
from tests.fixtures.archives import TEST, TRAIN, competition, field, write_zip

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder to work in, with a good source named tiny."""
    settings = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(settings.replace("sources: [sample]", "sources: [tiny, bad, kaggle]"))
    write_zip(tmp_path / "data/tiny/competition.zip", competition() | {"train/.DS_Store": b""})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pack", "--source", "tiny"])
    return tmp_path


def run(source: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline.stages.pack", "--source", source]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT)})


def test_a_good_source_is_packed_and_its_truth_never_opened(project: Path) -> None:
    (project / "data/tiny/test_truth.csv").symlink_to("nowhere")  # fails whoever opens it
    result = run("tiny")
    assert result.returncode == 0, result.stderr
    assert "1 files are in no table and were ignored, such as 'competition.zip/train/.DS_Store'" in result.stderr
    assert packed(project) == ["images/tiny.npy", "index/tiny.csv"]
    assert read_index("tiny")["id"].tolist() == [*TRAIN, *TEST]
    pixels = open_images("tiny")
    assert pixels.shape == (7, 512, 512, 4)
    # Enlarged, so no pixel for pixel comparison.
    assert np.abs(pixels.mean(axis=(1, 2)) - [field(id_).mean(axis=(0, 1)) for id_ in (*TRAIN, *TEST)]).max() < 3


def test_a_bad_source_ends_in_one_message_and_leaves_nothing(project: Path) -> None:
    files = competition() | {"train/a1_red.png": b"junk"}
    del files["test/t3_green.png"]
    write_zip(project / "data/bad/competition.zip", files)
    result = run("bad")
    assert result.returncode == 1
    assert "error: data/bad: 2 problems; nothing was written" in result.stderr
    assert "Traceback" not in result.stderr
    assert packed(project) == []


def packed(project: Path) -> list[str]:
    folder = project / "data/packed"
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(str(name) for name in names if name.parts[0] != ".partial")


def failure(capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        run_main(stage.main)
    assert "Traceback" not in capsys.readouterr().err
    return str(caught.value.code)


@pytest.mark.parametrize("call", ["posix_fallocate", "pwrite"])
def test_a_full_disk_ends_cleanly_and_the_next_run_goes_on(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], call: str
) -> None:
    run_main(stage.main)
    index = project / "data/packed/index/tiny.csv"
    before = index.read_bytes()

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        assert "No space left on device: free some space" in failure(capsys)
    assert packed(project) == ["images/tiny.npy", "index/tiny.csv"]
    assert index.read_bytes() == before
    run_main(stage.main)
    assert index.read_bytes() == before


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
def test_where_space_cannot_be_allocated_in_advance_it_is_not(
    project: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    run_main(stage.main)
    assert packed(project) == ["images/tiny.npy", "index/tiny.csv"]
    assert open_images("tiny").shape == (7, 512, 512, 4)


def test_an_interruption_is_taken_up_by_the_next_run(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: Any) -> None:
        pack(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stage, "pack", interrupted)
        with pytest.raises(SystemExit, match="130"):
            run_main(stage.main)
    assert "the next run resumes from there" in capsys.readouterr().err
    assert packed(project) == []
    run_main(stage.main)
    assert "7 of 7 samples were packed by an earlier run" in capsys.readouterr().err
    assert read_index("tiny")["id"].tolist() == [*TRAIN, *TEST]
    assert not list((project / "data/packed/.partial").iterdir())


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder in another file system than the project."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


def test_what_is_packed_can_be_on_another_disk_and_is_not_copied_between_them(
    project: Path, other_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "data/packed").symlink_to(other_disk)
    with monkeypatch.context() as patch:
        for name in ("copyfile", "copyfileobj", "copytree", "move"):
            patch.setattr(shutil, name, lambda *_, **__: pytest.fail("copied"))
        run_main(stage.main)
    assert packed(project) == ["images/tiny.npy", "index/tiny.csv"]
    assert (other_disk / "images/tiny.npy").stat().st_dev == other_disk.stat().st_dev
    assert open_images("tiny").shape == (7, 512, 512, 4)


def test_a_disk_that_is_too_small_is_named_with_the_way_out(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = shutil.disk_usage(project)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2**20))
    assert "move data/packed to a larger disk and put a link to it in its place" in failure(capsys)
    assert packed(project) == []


def test_a_missing_source_is_asked_for(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["pack", "--source", "kaggle"])
    assert failure(capsys).startswith("error: data/kaggle is missing: create this folder")
    assert not (project / "data/kaggle").exists()
    (project / "data/kaggle").symlink_to("/unmounted/kaggle")
    assert failure(capsys).startswith("error: data/kaggle is a link to /unmounted/kaggle, which does not exist: mount")
    (project / "data/kaggle").unlink()
    (project / "data/kaggle").touch()
    assert failure(capsys).startswith("error: data/kaggle is a file: replace it by a folder")
    assert (project / "data/kaggle").is_file()


def test_packed_on_a_disk_that_is_not_mounted_is_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "data/packed").symlink_to("/unmounted/packed")
    assert "data/packed is a link to /unmounted/packed, which does not exist: mount its disk" in failure(capsys)
    assert (project / "data/packed").is_symlink()


@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [("RLIMIT_FSIZE", 100_000, "File too large: choose a disk"), ("RLIMIT_NOFILE", 6, "Too many open files: raise")],
)
def test_a_limit_of_the_system_is_one_message(project: Path, limit: str, value: int, message: str) -> None:
    script = (
        "import resource, pipeline.stages.pack as stage, pipeline.core.entry as entry\n"
        f"resource.setrlimit(resource.{limit}, ({value}, {value}))\nentry.run_main(stage.main)"
    )
    command = [sys.executable, "-c", script, "--source", "tiny"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT)})
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert packed(project) == []
