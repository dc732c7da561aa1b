"""The summary of a finished run, and the door ``python -m pipeline``."""

import importlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline import __main__ as door
from pipeline.commands import summary
from pipeline.core import paths
from pipeline.core.entry import TIMES
from pipeline.core.errors import InputError
from pipeline.core.params import load

ROOT = Path(__file__).parents[2]


def git(*arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    summary.main([])
    return capsys.readouterr().out


@pytest.mark.usefixtures("finished_run")
def test_the_summary_names_the_files_the_scores_the_times_and_the_commit(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = json.loads(paths.METRICS.read_text())
    TIMES.parent.mkdir(exist_ok=True)
    model, (first, second, *_) = next(iter(load().models)), load().folds.ids
    TIMES.write_text(
        f"train,--model {model} --fold {first},70\ntrain,--model {model} --fold {second},40\n"
        f"train,--model {model} --fold {first},80.2\nfolds,,3\n"
        f"train,--model gone --fold {first},900\ntta,--model {model} --fold 77,900\npack,--source gone,900\n"
    )
    git("init", "--quiet")
    git("add", "params.yaml")
    git("commit", "--quiet", "--message", "run")
    text = printed(capsys)
    test, single_fold = metrics["test"], metrics["test_as_held_out"]
    for expected in (
        "submission.csv",
        "report.html",
        "metrics.json",
        f"{metrics['macro_f1']:.3f} ({metrics['macro_f1_present']:.3f} over the 6 labels that occur",
        f"95% interval {metrics['macro_f1_low']:.3f} to {metrics['macro_f1_high']:.3f} (120 out-of-fold samples",
        ", ".join(f"{fold:.3f}" for fold in metrics["folds"].values()),
        f"{metrics['memory']['image_level_folds']:.3f} with image-level folds",
        f"{metrics['expected_test_low']:.3f} to {metrics['expected_test_high']:.3f} for single-fold models",
    ):
        assert expected in text
    lines = {line[:19].strip(): line[19:] for line in text.splitlines()}
    assert lines["test"].startswith(f"{test['macro_f1']:.3f}")
    assert lines["test, single fold"].startswith(f"{single_fold['macro_f1']:.3f}")
    assert lines["test, single fold"].endswith("(25 samples, single-fold models)")
    assert lines["time"] == "2 min 3 s (train 2 min 0 s, folds 3 s)", "the last time of a job counts"
    assert lines["code"] == f"commit {git('rev-parse', '--short=12', 'HEAD')}"
    with Path("params.yaml").open("a") as file:
        file.write("\n")
    assert lines["code"] + " with changes" in printed(capsys)


def test_a_summary_before_the_run_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"metrics\.json is missing"):
        summary.main([])


def called(monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str]) -> int | str | None:
    """The exit code of ``python -m pipeline`` with these arguments, in this process."""
    monkeypatch.setattr(sys, "argv", ["pipeline", *arguments])
    with pytest.raises(SystemExit) as caught:
        door.main()
    return caught.value.code


def test_the_door_lists_every_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert called(monkeypatch, ["--help"]) == 0
    text = capsys.readouterr().out
    modules = {path.stem for path in (ROOT / "pipeline/commands").glob("[a-z]*.py")}
    assert len(door.COMMANDS) == len(modules)
    for command, meaning in door.COMMANDS.items():
        assert re.search(rf"^  {command} +{re.escape(meaning)}$", text, re.MULTILINE)


def test_an_unknown_command_is_refused_with_the_known_ones(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(monkeypatch, ["nonsense"]) == 2
    text = capsys.readouterr().err
    assert all(command in text for command in door.COMMANDS)
    assert called(monkeypatch, []) == 2


@pytest.mark.parametrize("command", door.COMMANDS)
def test_each_command_explains_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert called(monkeypatch, [command, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: python -m pipeline {command}")
    assert len(text.splitlines()) > 5
    assert called(monkeypatch, [command, "--nonsense"]) == 2


def test_only_the_door_starts_a_command() -> None:
    for path in (ROOT / "pipeline/commands").glob("[a-z]*.py"):
        module = importlib.import_module(f"pipeline.commands.{path.stem}")
        assert callable(module.main)
        assert "__main__" not in path.read_text(), f"{path} is a second way to start the command"


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_imports_ends_without_a_traceback(tmp_path: Path, by: signal.Signals) -> None:
    (tmp_path / "torch.py").write_text(f"import os\nos.kill(os.getpid(), {int(by)})\n")
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "embed", "images"],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 128 + by
    [line] = done.stderr.splitlines()
    assert line.startswith(f"stopped by {by.name}: ")


def test_a_closed_output_is_no_error() -> None:
    command = f"{shlex.quote(sys.executable)} -m pipeline params --check >&-"
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_broken_parameters_end_the_command_with_one_line_and_code_1(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("  resamples:", "  resample:"))
    command = [sys.executable, "-m", "pipeline", "params", "--check"]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("error: params.yaml: score.resamples: this key is missing; score.resample: unknown key;")
    assert done.stdout == ""
