"""The log of times: only finished stages are in it, and the last time of each counts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.core import entry
from pipeline.reporting.page import times_table

ROOT = Path(__file__).parents[2]


def run(*command: str) -> int:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, check=False).returncode


def test_a_stage_that_fails_and_a_program_that_is_none_leave_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    assert run("-m", "pipeline.core.params") == 0
    assert run("-m", "pipeline.stages.submit") == 1
    assert not entry.TIMES.exists()


def test_the_last_time_of_each_cell_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    entry.TIMES.write_text(
        "train,--model a,9.0\ntrain,--model a,30.0\ntrain,--model b,60.0\nreport,,99.0\nscore,,10.0\n"
    )
    table = times_table(entry.read_times())
    assert [[cell.text for cell in row] for row in table.rows] == [["train", "2", "90.0"], ["score", "1", "10.0"]]
    assert table.caption == "When each last ran on this machine: 1.7 minutes in all, 90% of them in “train”."


def test_a_run_from_elsewhere_has_no_times() -> None:
    assert times_table({}).caption == "No times are known: the stages ran elsewhere."
